// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package sparse

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Make lets a file have holes, which every file may here.
func Make(*os.File) error { return nil }

// Allocated is what a file takes up on this host, in bytes.
func Allocated(name string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return 0, fmt.Errorf("look at what %q takes up: %w", name, err)
	}
	return st.Blocks * 512, nil
}

// Free is what this user may still write to the file system of a folder, in bytes.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the free space of %q: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // it has another type on macOS
}

// nextData finds the next part of a file that is no hole; where the file system does not tell, that is the rest.
func nextData(f *os.File, from, size int64) (extent, error) {
	begin, err := f.Seek(from, seekData)
	switch {
	case errors.Is(err, unix.ENXIO): // a hole to the end
		return extent{size, size}, nil
	case err != nil:
		return extent{from, size}, nil //nolint:nilerr // all of it may be data
	}
	end, err := f.Seek(begin, seekHole)
	if err != nil {
		return extent{begin, size}, nil //nolint:nilerr // all of it may be data
	}
	return extent{begin, min(end, size)}, nil
}
