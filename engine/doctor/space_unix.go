// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package doctor

import "golang.org/x/sys/unix"

// FreeSpace gives the free and whole bytes of the file system that a folder is on.
func FreeSpace(dir string) (free, size uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	block := uint64(st.Bsize) //nolint:gosec // a size; its type differs between systems
	return st.Bavail * block, st.Blocks * block, nil
}
