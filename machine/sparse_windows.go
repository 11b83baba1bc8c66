// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"

	"golang.org/x/sys/windows"
)

// makeSparse tells NTFS that a file may have holes; elsewhere files may anyhow. A file system that cannot holds the whole size.
func makeSparse(f *os.File) error {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	return nil
}
