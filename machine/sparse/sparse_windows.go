// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// setZeroData is FSCTL_SET_ZERO_DATA.
const setZeroData = 0x980c8

// Make lets a file have holes, where the file system knows them.
func Make(f *os.File) error {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil) // without, it holds its whole size
	return nil
}

var compressedSize = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetCompressedFileSizeW")

// Allocated is what a file takes up on this host, in bytes.
func Allocated(name string) (int64, error) {
	path, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, fmt.Errorf("look at what %q takes up: %w", name, err)
	}
	var high uint32
	low, _, callErr := compressedSize.Call(uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&high)))
	if uint32(low) == ^uint32(0) {
		info, err := os.Lstat(name) // also what a size of this many bytes looks like
		if err != nil {
			return 0, fmt.Errorf("look at what %q takes up: %w", name, callErr)
		}
		return info.Size(), nil
	}
	return int64(high)<<32 | int64(uint32(low)), nil
}

// Free is what this user may still write to the file system of a folder, in bytes.
func Free(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("look at the free space of %q: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("look at the free space of %q: %w", dir, err)
	}
	return int64(free), nil
}

// nextData takes all of a file for data: holes read as zeros, and fast.
func nextData(_ *os.File, from, size int64) (extent, error) { return extent{from, size}, nil }

func cloneFile(_, _ *os.File) error { return windows.ERROR_NOT_SUPPORTED }

func punchHole(f *os.File, at, length int64) error {
	r := struct{ from, to int64 }{at, at + length}
	var n uint32
	return windows.DeviceIoControl(windows.Handle(f.Fd()), setZeroData, (*byte)(unsafe.Pointer(&r)), uint32(unsafe.Sizeof(r)), nil, 0, &n, nil)
}
