// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Styles are the SGR parameters of ECMA-48: what stands between ESC [ and m.
const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	cyan   = "36"
)

// paint puts text into a style, or leaves it as it is where colors are not wanted.
type paint func(style, text string) string

// painter decides whether what is written to w may have colors: NO_COLOR (https://no-color.org) and off forbid it, --ansi always asks for it, else
// w must be a terminal that knows them.
func (a *app) painter(w io.Writer, off bool) paint {
	if off || !a.colorful(w) {
		return func(_, text string) string { return text }
	}
	return func(style, text string) string {
		if style == "" || text == "" {
			return text
		}
		return "\x1b[" + style + "m" + text + "\x1b[0m"
	}
}

func (a *app) colorful(w io.Writer) bool {
	switch {
	case a.getenv("NO_COLOR") != "" || a.ansi == "never":
		return false
	case a.ansi == "always":
		return true
	}
	return a.moves(w)
}

// moves reports whether w is a terminal that understands cursor control.
func (a *app) moves(w io.Writer) bool {
	return isTerminal(w) && a.getenv("TERM") != "dumb" && virtualTerminal(w.(*os.File))
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalSize is the size of the terminal behind w in characters; 80 by 24 if it does not tell.
func terminalSize(w io.Writer) (width, height int) {
	if f, ok := w.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return 80, 24
}
