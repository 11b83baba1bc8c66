// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package saved

import (
	"io/fs"
	"syscall"
)

// inode adds what the system knows of a file: the inode, and when anything of it was changed last, which no program can set back.
func (d *Disk) inode(info fs.FileInfo) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		d.Inode, d.Changed = s.Ino, changeTime(s)
	}
}
