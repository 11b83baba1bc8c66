// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// detached starts a process without this console and outside its group: Ctrl-C and the closing of the window do not reach it.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}

// background starts a process of which nothing is waited for, and which runs only when nothing else wants to.
func background() *syscall.SysProcAttr {
	attr := detached()
	attr.CreationFlags |= windows.IDLE_PRIORITY_CLASS
	return attr
}

// giveWay has nothing to add: the process was started so.
func giveWay(int) {}
