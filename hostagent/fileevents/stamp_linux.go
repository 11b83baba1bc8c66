// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func stampOf(info fs.FileInfo) Stamp {
	s := Stamp{Mode: info.Mode(), Size: info.Size(), Modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Inode, s.UID, s.GID, s.Changed = st.Ino, st.Uid, st.Gid, time.Unix(st.Ctim.Unix())
	}
	return s
}

// born is when a file was made; zero where that is not known.
func born(path string, _ fs.FileInfo) time.Time {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// remote reports whether others may change a folder without this system noticing: it is on another computer, or in another program.
func remote(root *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(root.Fd()), &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC,
		unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.NCP_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return true
	}
	return false
}
