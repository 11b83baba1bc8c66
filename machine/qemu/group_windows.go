// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// ownGroup keeps the agent's console events from QEMU, which gets no window.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW, HideWindow: true}
}
