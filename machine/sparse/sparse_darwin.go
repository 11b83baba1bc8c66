// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's numbers, of <sys/unistd.h> and <sys/fcntl.h>.
const (
	seekHole  = 3
	seekData  = 4
	punchCall = 99 // F_PUNCHHOLE
)

// cloneFile: APFS clones names, not open files; a copy with holes does.
func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }

// punchRange is the kernel's struct fpunchhole.
type punchRange struct {
	flags, reserved uint32
	offset, length  int64
}

func punchHole(f *os.File, at, length int64) error {
	r := punchRange{offset: at, length: length}
	if _, _, errno := unix.Syscall(unix.SYS_FCNTL, f.Fd(), punchCall, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}
