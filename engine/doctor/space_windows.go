// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package doctor

import "golang.org/x/sys/windows"

// FreeSpace gives the free and whole bytes of the file system that a folder is on.
func FreeSpace(dir string) (free, size uint64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var all uint64
	err = windows.GetDiskFreeSpaceEx(name, &free, &size, &all)
	return free, size, err
}
