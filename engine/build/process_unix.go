// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package build

import (
	"os"
	"syscall"
)

// ownGroup keeps the terminal's signals from the program.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
