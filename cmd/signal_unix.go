// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardable are the signals that `run` and `attach` pass on to a container. SIGCHLD, SIGPIPE and SIGURG tell of this process itself,
// SIGWINCH is a resize, and the rest cannot be caught or would stop the terminal.
var forwardable = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// signalName is the engine's name of a signal: "SIGINT".
func signalName(s os.Signal) string {
	n, ok := s.(syscall.Signal)
	if !ok {
		return ""
	}
	return unix.SignalName(n)
}
