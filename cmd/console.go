// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"

	"golang.org/x/term"

	"github.com/seed71221737/dev/engine"
)

// console is the user's terminal for an interactive command: keys come from in, its size is out's. It implements [engine.Terminal].
type console struct {
	a       *app
	in, out *os.File
}

// console is the terminal that the process has, nil if its input or its output is none.
func (a *app) console() engine.Terminal {
	if !isTerminal(a.in) || !isTerminal(a.out) {
		return nil
	}
	return &console{a, a.in.(*os.File), a.out.(*os.File)}
}

// Raw hands every key through. What it changed is undone even if the process is ended by a signal.
func (c *console) Raw() (restore func() error, err error) {
	fd := int(c.in.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	virtualTerminal(c.out)
	var restoreErr error
	now := c.a.onRestore(func() { restoreErr = term.Restore(fd, before) })
	return func() error {
		now()
		return restoreErr
	}, nil
}

// Size is the terminal's size in characters.
func (c *console) Size() (width, height int) {
	w, h, err := term.GetSize(int(c.out.Fd()))
	if err != nil {
		return 0, 0
	}
	return w, h
}

// OnResize has f called when the size may have changed.
func (c *console) OnResize(f func()) (stop func()) { return onResize(c.out, f) }
