// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"os"
	"syscall"
)

// ownGroup keeps the console's signals from the program.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// terminate ends the program; Windows knows no gentler way.
func terminate(p *os.Process) error { return p.Kill() }
