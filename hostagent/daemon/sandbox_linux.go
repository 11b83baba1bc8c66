// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"os/exec"
	"syscall"
)

// sandboxed starts a server in a process group of its own that does not outlive this process's main thread's owner. Without root the C kind gets a
// user namespace in which it is root over the user's own files, which its sandbox needs; the Rust kind makes one by itself.
func sandboxed(cmd *exec.Cmd, root, rust bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if root || rust {
		return
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}
