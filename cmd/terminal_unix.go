// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"os"
	"os/signal"
	"syscall"
)

// virtualTerminal reports whether a terminal takes control sequences; every Unix terminal does.
func virtualTerminal(*os.File) bool { return true }

// onResize calls f, one call at a time, whenever the terminal's size changed, until stop.
func onResize(_ *os.File, f func()) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range ch {
			f()
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}
}
