// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package qemu

import (
	"os"
	"slices"
	"syscall"
)

// faults are signals by which the system ends a program for what it did. Others are somebody's wish.
var faults = []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS}

// crashed says whether a process was ended for a fault of its own.
func crashed(p *os.ProcessState) bool {
	status, ok := p.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && slices.Contains(faults, status.Signal())
}
