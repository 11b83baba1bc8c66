// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package qemu

import "syscall"

// ownGroup keeps signals to the agent's group from QEMU.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
