// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package machine

import "syscall"

// detached starts a process in a session of its own: the terminal's signals do not reach it, and it outlives the terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
