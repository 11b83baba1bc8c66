// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package machine

import (
	"fmt"
	"os"
	"syscall"
)

// detached starts a process in a session of its own: the terminal's signals do not reach it, and it outlives the terminal.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// background starts a process of which nothing is waited for.
func background() *syscall.SysProcAttr { return detached() }

// giveWay lets a process run only when nothing else wants to.
func giveWay(pid int) {
	// Otherwise the others only take longer. Linux weighs sessions against each other first.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, pid, 19)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte("19"), 0)
}
