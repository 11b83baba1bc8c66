// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// muchRoom and manyFiles are far more than the guest may have under way within roomKnown.
	muchRoom  = 1 << 30
	manyFiles = 20_000
	// roomKnown is how long the room that a file system was seen to have is believed.
	roomKnown = time.Second
)

// room knows whether the share's own file system has much room left. The zero value has looked at nothing.
type room struct {
	dev   uint64
	until atomic.Int64 // when it is looked again, in nanoseconds since 1970
	much  atomic.Bool
}

// plainSystems are file systems on which making a file in a folder that has just allowed one fails for want of room only. What is reached over a network, or takes
// other names for the same, is not among them.
var plainSystems = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
	unix.OVERLAYFS_SUPER_MAGIC: true,
}

// is says that there is much room on a device. Other file systems below the share are not looked at.
func (r *room) is(root int, dev uint64) bool {
	if dev != r.dev {
		return false
	}
	now := time.Now().UnixNano()
	if until := r.until.Load(); now < until && until-now <= int64(roomKnown) {
		return r.much.Load()
	}
	var st unix.Statfs_t
	much := unix.Fstatfs(root, &st) == nil && plainSystems[int64(st.Type)] && //nolint:unconvert // it has other types on other architectures
		st.Bavail*uint64(st.Bsize) >= muchRoom && (st.Files == 0 || st.Ffree >= manyFiles) // some have as many files as fit
	r.much.Store(much)
	r.until.Store(now + int64(roomKnown))
	return much
}

// deviceOf is the number of the file system that an open file is on, as attrOf sees it.
func deviceOf(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st); err != nil {
		return 0, err
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
}
