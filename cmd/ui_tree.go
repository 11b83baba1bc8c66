// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

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
		out:    out,
		builds: newBuilds(nil),
		size:   func() (int, int) { return terminalSize(out) },
		style:  style,
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
		rows:   rows{heading: heading},
	}
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
	taken, ended := t.builds.take(e)
	if ended {
		t.leaveBuilds()
	}
	if taken {
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
	t.erase()
	write()
	t.drawLocked(false)
}

// leaveBuilds leaves the builds' last frame on the screen, above the rows.
func (t *tree) leaveBuilds() {
	t.screen.Lock()
	defer t.screen.Unlock()
	lines := t.builds.finish(t.input(true))
	if len(lines) == 0 {
		return
	}
	t.erase()
	for _, l := range lines {
		io.WriteString(t.out, l.styled+"\n")
	}
	t.drawLocked(false)
}

// input is what a frame depends on now.
func (t *tree) input(final bool) frameInput {
	width, height := t.size()
	return frameInput{now: time.Now(), width: width, height: height, final: final, style: t.style}
}

func (t *tree) close() {
	t.closeOnce.Do(func() {
		close(t.quit)
		<-t.done
		t.leaveBuilds()
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
	in := t.input(final)
	var b bytes.Buffer
	b.WriteString(beginUpdate)
	b.WriteString(upOver(t.drawn, in.width))
	t.drawn = t.drawn[:0]
	for _, l := range t.lines(in) {
		b.WriteString(l.styled)
		b.WriteString("\x1b[K\n")
		t.drawn = append(t.drawn, l.plain)
	}
	b.WriteString("\x1b[J" + endUpdate)
	t.out.Write(b.Bytes())
}

// lines are the frame: the builds while there are any, else the rows.
func (t *tree) lines(in frameInput) []frameLine {
	if !in.final && t.builds.active() {
		return t.builds.frame(in)
	}
	t.model.Lock()
	defer t.model.Unlock()
	return t.rows.frame(in)
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
