// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// virtualTerminal switches control sequences on for a console and reports whether it has them (since Windows 10).
func virtualTerminal(f *os.File) bool {
	var mode uint32
	h := windows.Handle(f.Fd())
	if windows.GetConsoleMode(h, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(h, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}

// resizeInterval is how often the console is asked for its size: Windows does not tell of changes.
const resizeInterval = 250 * time.Millisecond

// onResize calls f, one call at a time, whenever the console's size changed, until stop.
func onResize(out *os.File, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(resizeInterval)
		defer ticker.Stop()
		width, height := terminalSize(out)
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			if w, h := terminalSize(out); w != width || h != height {
				width, height = w, h
				f()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
