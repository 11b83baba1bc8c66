// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/seed71221737/dev/compose"
)

// menu is a line of keys at the bottom of the terminal, below what is written there. A nil menu is none. Its methods may be called from several
// goroutines at once.
type menu struct {
	out   io.Writer
	paint paint

	mu     sync.Mutex
	text   string
	hidden bool
	closed bool
}

var _ progress = (*menu)(nil)

// eraseLine goes to the start of the line and clears it: ECMA-48's EL.
const eraseLine = "\r\x1b[K"

func (m *menu) draw() {
	if !m.hidden && !m.closed {
		_, _ = io.WriteString(m.out, eraseLine+m.paint(faint, m.text))
	}
}

func (m *menu) erase() {
	if !m.hidden && !m.closed {
		_, _ = io.WriteString(m.out, eraseLine)
	}
}

// say replaces the line.
func (m *menu) say(text string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text = text
	m.draw()
}

// above implements [progress].
func (m *menu) above(write func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
	write()
	m.draw()
}

// Event implements [progress]; the menu tells of no operations.
func (m *menu) Event(compose.Event) {}

// show implements [progress].
func (m *menu) show(status) {}

// reveal draws the line again after hide.
func (m *menu) reveal() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hidden = false
	m.draw()
}

// hide takes the line away until reveal.
func (m *menu) hide() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
	m.hidden = true
}

// note implements [progress].
func (m *menu) note(text string) {
	m.above(func() { fmt.Fprintln(m.out, m.paint(yellow, "warning:")+" "+text) })
}

// close implements [progress].
func (m *menu) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
	m.closed = true
}

// side is what goes on beside the output of an attached `up`: source files are followed, keys are read. Its methods are the session's goroutine's.
type side struct {
	s    *session
	menu *menu
	keys <-chan byte // nil: none are read
	// ended tells that the following of files has ended by itself or by a key.
	ended chan struct{}
	undo  []func()

	stopWatch context.CancelFunc // nil: files are not followed
	watching  sync.WaitGroup
}

// prepareWatch finds the rules for --watch, and for the menu if there are any.
func (s *session) prepareWatch() error {
	w := &watching{a: s.a, o: watchOptions{prune: true, quiet: s.o.quietBuild}, services: s.services, p: s.p, e: s.e}
	switch {
	case s.o.watch:
		if err := w.findRules(); err != nil {
			return err
		}
	case s.wantsMenu():
		if rules, _, _ := compose.WatchRules(s.p, s.services); len(rules) == 0 {
			return nil // the key says what is missing
		}
	default:
		return nil
	}
	s.watching = w
	return nil
}

// wantsMenu reports whether keys are offered: asked for by the flag or COMPOSE_MENU, and possible.
func (s *session) wantsMenu() bool {
	asked := s.o.menu
	if !s.o.menuSet {
		asked = isTrue(s.a.setting(s.p, "COMPOSE_MENU"))
	}
	return asked && isTerminal(s.a.in) && s.a.moves(s.a.err) && s.a.progressName != "json"
}

// startSide begins what goes on beside the output.
func (s *session) startSide(ctx context.Context) *side {
	d := &side{s: s, ended: make(chan struct{}, 1)}
	if s.wantsMenu() {
		d.openMenu()
	}
	if s.o.watch || d.menu != nil {
		s.printer.setAround(s.a.aside)
		d.undo = append(d.undo, func() { s.printer.setAround(nil) })
	}
	if s.o.watch {
		d.follow(ctx)
	}
	return d
}

// openMenu shows the menu and reads keys. Without a terminal that gives them one by one there is none.
func (d *side) openMenu() {
	a := d.s.a
	in, ok := a.in.(*os.File)
	if !ok {
		return
	}
	restore, err := keyByKey(in)
	if err != nil {
		a.warn("no menu: " + err.Error())
		return
	}
	now := a.onRestore(restore)
	d.menu = &menu{out: a.err, paint: a.painter(a.err, false)}
	release := a.setLive(d.menu)
	keys := make(chan byte)
	d.keys = keys
	done := make(chan struct{})
	go readKeys(in, keys, done)
	d.undo = append(d.undo, func() {
		close(done)
		d.menu.close()
		release()
		now()
	})
	d.describe()
}

// readKeys reads keys until the input or the session ends. A read that waits cannot be called off: it ends with the process.
func readKeys(in io.Reader, keys chan<- byte, done <-chan struct{}) {
	b := make([]byte, 1)
	for {
		if _, err := in.Read(b); err != nil {
			return
		}
		select {
		case keys <- b[0]:
		case <-done:
			return
		}
	}
}

// describe writes the menu's line.
func (d *side) describe() {
	state := "start watching"
	if d.follows() {
		state = "stop watching"
	}
	d.menu.say("w: " + state + "   v: view services   o: view config   d: detach   Ctrl-C: stop")
}

// follows reports whether files are being followed.
func (d *side) follows() bool { return d.stopWatch != nil }

// follow begins to follow files.
func (d *side) follow(ctx context.Context) {
	ctx, d.stopWatch = context.WithCancel(ctx)
	d.watching.Go(func() {
		if err := d.s.watching.run(ctx); err != nil && ctx.Err() == nil {
			d.s.watching.complain(err)
		}
		select {
		case d.ended <- struct{}{}:
		default:
		}
	})
}

// unfollow ends it.
func (d *side) unfollow() {
	if d.stopWatch != nil {
		d.stopWatch()
		d.watching.Wait()
		d.stopWatch = nil
	}
}

// press does what a key says and reports whether the session is to be left.
func (d *side) press(ctx context.Context, key byte) (leave bool) {
	a := d.s.a
	switch key {
	case 'w', 'W':
		switch {
		case d.follows():
			d.unfollow()
			a.say("Watching has stopped")
		case d.s.watching == nil:
			a.say("No service has a develop.watch section; dev watch --infer proposes rules")
		default:
			if err := d.s.watching.findRules(); err != nil {
				a.say(err.Error())
				break
			}
			d.follow(ctx)
		}
		d.describe()
	case 'v', 'V':
		d.view(ctx)
	case 'o', 'O':
		if content, err := marshalProject("yaml", d.s.p); err == nil {
			a.say(string(content))
		}
	case 'd', 'D':
		return true
	case '\n', '\r':
		a.say("")
	}
	return false
}

// view lists the containers and how they are.
func (d *side) view(ctx context.Context) {
	have, err := d.s.observe(ctx)
	if err != nil {
		d.s.a.say(err.Error())
		return
	}
	for _, c := range have.Containers {
		if !c.OneOff() {
			d.s.a.say(fmt.Sprintf("%-24s %-12s %s", logName(c), stateText(c), (&psRow{c: c}).Ports()))
		}
	}
}

// close ends all of it and gives the terminal back.
func (d *side) close() {
	d.unfollow()
	for i := len(d.undo) - 1; i >= 0; i-- {
		d.undo[i]()
	}
}
