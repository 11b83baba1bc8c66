// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/seed71221737/dev/compose"
)

// tree is live progress on a terminal: a heading and one row for each thing, redrawn in place a few times a second, and only where it changed.
//
// Two locks keep the engine's work independent of a terminal that does not take output (Ctrl-S): model guards the rows and is held for
// moments only; screen is held while drawing.
type tree struct {
	wording
	out    io.Writer
	size   func() (width, height int)
	style  treeStyle
	builds *builds
	quit   chan struct{}
	done   chan struct{}
	// showCursor undoes what drawing changed about the terminal.
	showCursor func()
	closeOnce  sync.Once

	model sync.Mutex
	rows  rows

	screen sync.Mutex
	// drawn are the lines on the screen now, without styles: their lengths tell how many rows of the screen they take.
	drawn []string
	// suspended while something else draws (BuildKit's display); resumed tells of its end.
	suspended bool
	resumed   *sync.Cond
}

const drawInterval = 100 * time.Millisecond

// What is written between these shows up at once; terminals without synchronized updates ignore them.
const (
	beginUpdate = "\x1b[?2026h"
	endUpdate   = "\x1b[?2026l"
)

// startTree shows the tree on out until close. onRestore remembers how to give the cursor back if the process must end at once.
func startTree(out io.Writer, heading string, style treeStyle, onRestore func(func()) func()) *tree {
	t := &tree{
		out:   out,
		size:  func() (int, int) { return terminalSize(out) },
		style: style,
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
		rows:  rows{heading: heading},
	}
	t.resumed = sync.NewCond(&t.screen)
	t.builds = newBuilds(out, progressui.TtyMode)
	t.builds.opened, t.builds.closed = t.suspend, t.resume
	io.WriteString(out, "\x1b[?25l")
	t.showCursor = onRestore(func() { io.WriteString(out, "\x1b[?25h") })
	go t.loop()
	return t
}

func (t *tree) loop() {
	defer close(t.done)
	ticker := time.NewTicker(drawInterval)
	defer ticker.Stop()
	for {
		select {
		case <-t.quit:
			return
		case <-ticker.C:
			t.draw(false)
		}
	}
}

func (t *tree) Event(e compose.Event) {
	if t.builds.take(e) {
		return
	}
	s, ok := t.status(e)
	t.model.Lock()
	defer t.model.Unlock()
	if e.Kind == compose.EventQueued && e.Op.Target != "" {
		t.rows.expect(title(e.Op.Target))
	}
	if ok {
		t.rows.set(s, time.Now())
	}
}

func (t *tree) show(s status) {
	t.model.Lock()
	defer t.model.Unlock()
	t.rows.set(s, time.Now())
}

func (t *tree) note(text string) {
	t.above(func() { fmt.Fprintf(t.out, "%s %s\n", t.style.paint(yellow, "warning:"), text) })
}

func (t *tree) above(write func()) {
	t.screen.Lock()
	defer t.screen.Unlock()
	for t.suspended {
		t.resumed.Wait()
	}
	t.erase()
	write()
	t.drawLocked(false)
}

func (t *tree) suspend() {
	t.draw(true)
	t.screen.Lock()
	defer t.screen.Unlock()
	t.drawn, t.suspended = nil, true
}

func (t *tree) resume() {
	t.screen.Lock()
	defer t.screen.Unlock()
	t.drawn, t.suspended = nil, false
	t.resumed.Broadcast()
}

func (t *tree) close() {
	t.closeOnce.Do(func() {
		t.builds.close()
		close(t.quit)
		<-t.done
		t.draw(true)
		t.showCursor()
	})
}

func (t *tree) draw(final bool) {
	t.screen.Lock()
	defer t.screen.Unlock()
	t.drawLocked(final)
}

// drawLocked writes the frame over the one before it in one write, so that the terminal never shows half of it.
func (t *tree) drawLocked(final bool) {
	if t.suspended {
		return
	}
	width, height := t.size()
	t.model.Lock()
	lines := t.rows.frame(frameInput{now: time.Now(), width: width, height: height, final: final, style: t.style})
	t.model.Unlock()
	var b bytes.Buffer
	b.WriteString(beginUpdate)
	b.WriteString(upOver(t.drawn, width))
	t.drawn = t.drawn[:0]
	for _, l := range lines {
		b.WriteString(l.styled)
		b.WriteString("\x1b[K\n")
		t.drawn = append(t.drawn, l.plain)
	}
	b.WriteString("\x1b[J" + endUpdate)
	t.out.Write(b.Bytes())
}

// erase takes the rows off the screen; t.screen is held.
func (t *tree) erase() {
	if len(t.drawn) == 0 {
		return
	}
	width, _ := t.size()
	// The update ends with the frame that follows.
	io.WriteString(t.out, beginUpdate+upOver(t.drawn, width)+"\x1b[J")
	t.drawn = t.drawn[:0]
}

// upOver moves the cursor to the start of lines drawn before. A terminal made narrower since has broken them into more rows.
func upOver(lines []string, width int) string {
	n := 0
	for _, l := range lines {
		n += max(1, (columns(l)+width-1)/width)
	}
	if n == 0 {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA", n)
}

// treeStyle is how a tree looks.
type treeStyle struct {
	paint   paint
	spinner []string
	marks   map[rowState]string
	bar     []string
}

// treeStyle picks signs that the terminal has: the Linux console's font lacks the nice ones.
func (a *app) treeStyle(w io.Writer) treeStyle {
	s := treeStyle{
		paint:   a.painter(w, false),
		spinner: strings.Split("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", ""),
		marks:   map[rowState]string{rowDone: "✔", rowWarning: "!", rowFailed: "✘"},
		bar:     strings.Split(" ⡀⣀⣄⣤⣦⣶⣷⣿", ""),
	}
	if a.getenv("TERM") == "linux" {
		s.spinner = strings.Split(`|/-\`, "")
		s.marks = map[rowState]string{rowDone: "+", rowWarning: "!", rowFailed: "x"}
		s.bar = strings.Split(" .:-=+*#", "")
	}
	return s
}
