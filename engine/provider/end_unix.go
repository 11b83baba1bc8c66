// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package provider

import (
	"os/exec"
	"syscall"
)

// terminate lets a cancelled program end in its own way, and keeps a Ctrl-C in the terminal from it.
func terminate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) } // and what it started
}
