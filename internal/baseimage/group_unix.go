// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package baseimage

import "syscall"

// ownGroup puts a child into a process group of its own, so that a Ctrl-C on the terminal reaches it through us alone.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
