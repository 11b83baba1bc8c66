// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package provider

import (
	"os/exec"
	"syscall"
)

// terminate keeps a Ctrl-C in the console from the program; it is killed when it is cancelled.
func terminate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
