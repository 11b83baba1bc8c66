// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package remote

import (
	"os/exec"
	"syscall"
)

// isolate gives git a process group of its own, which ends with the context: it runs helpers.
func isolate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
}
