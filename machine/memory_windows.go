// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// hostMemoryMiB is the host's memory; 0 where it is not known.
func hostMemoryMiB() int {
	var status struct {
		length, load                                             uint32
		total, available, pageTotal, pageFree, virtual, free, ex uint64
	}
	status.length = uint32(unsafe.Sizeof(status))
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, _ := call.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return 0
	}
	return int(status.total >> 20)
}
