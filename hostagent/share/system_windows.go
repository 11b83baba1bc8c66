// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// stableIdentity: a file's identity is made of its path, so that a renamed file is another one to the machine.
const stableIdentity = false

// reserved are names that devices have in every folder.
var reserved = []string{"con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9"}

// nameAllowed refuses what this system would take for something else.
func nameAllowed(name string) bool {
	base, _, _ := strings.Cut(strings.ToLower(name), ".")
	return !strings.ContainsAny(name, `<>:"\|?*`) && !strings.HasSuffix(name, ".") && !strings.HasSuffix(name, " ") &&
		!slices.Contains(reserved, strings.TrimSpace(base)) && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' })
}

func slashed(path string) string { return filepath.ToSlash(path) }

// systemAttr adds what this system says of a file. It knows no modes: everything can be run, and a read-only file cannot be written.
func systemAttr(p string, info fs.FileInfo, a *wire.Attr) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.ToLower(path.Clean(p)))) // never fails
	born := uint64(0)
	if d, ok := info.Sys().(*syscall.Win32FileAttributeData); ok {
		born = uint64(d.CreationTime.Nanoseconds())
		a.Atime = d.LastAccessTime.Nanoseconds()
	}
	a.Ident = identity(0, h.Sum64(), born)
	a.Ino = a.Ident
	if a.Mode&wire.TypeMask != wire.TypeSymlink {
		if a.Mode |= 0o555; a.Mode&0o200 != 0 {
			a.Mode = a.Mode&wire.TypeMask | 0o755
		}
	}
}

// systemErrno translates this system's numbers to Linux's.
func systemErrno(err error) uint16 {
	for _, e := range []struct {
		here  windows.Errno
		there uint16
	}{
		{windows.ERROR_DIR_NOT_EMPTY, wire.ENOTEMPTY}, {windows.ERROR_DIRECTORY, wire.ENOTDIR}, {windows.ERROR_DISK_FULL, wire.ENOSPC}, {windows.ERROR_HANDLE_DISK_FULL, wire.ENOSPC},
		{windows.ERROR_NOT_SAME_DEVICE, wire.EXDEV}, {windows.ERROR_WRITE_PROTECT, wire.EROFS}, {windows.ERROR_FILENAME_EXCED_RANGE, wire.ENAMETOOLONG},
		{windows.ERROR_INVALID_NAME, wire.EINVAL}, {windows.ERROR_SHARING_VIOLATION, wire.ETXTBSY}, {windows.ERROR_USER_MAPPED_FILE, wire.ETXTBSY}, {windows.ERROR_PRIVILEGE_NOT_HELD, wire.EPERM},
		{windows.ERROR_FILE_TOO_LARGE, wire.EFBIG}, {windows.ERROR_TOO_MANY_LINKS, wire.EMLINK},
	} {
		if errors.Is(err, e.here) {
			return e.there
		}
	}
	return wire.EIO
}

func systemStatfs(root *os.Root) (s wire.Statfs, err error) {
	dir, err := windows.UTF16PtrFromString(root.Name())
	if err != nil {
		return s, err
	}
	var available, total, free uint64
	if err := windows.GetDiskFreeSpaceEx(dir, &available, &total, &free); err != nil {
		return s, err
	}
	const block = 4096
	return wire.Statfs{Bsize: block, Blocks: total / block, Free: free / block, Available: available / block, Files: 1 << 30, FilesFree: 1 << 30, NameLen: wire.MaxName}, nil
}
