// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"io/fs"
	"time"
)

// Stamp is what tells two states of a file apart.
type Stamp struct {
	Inode    uint64
	Mode     fs.FileMode
	UID, GID uint32
	Size     int64
	Modified time.Time
	// Changed is when anything but the content was changed last, where the system has it.
	Changed time.Time
}

// sameContent reports whether a file has the same content in both states, as far as can be told without reading it.
func (s Stamp) sameContent(o Stamp) bool {
	return s.Inode == o.Inode && s.Mode.Type() == o.Mode.Type() && s.Size == o.Size && s.Modified.Equal(o.Modified)
}

// sameAttributes reports whether nothing but the content differs.
func (s Stamp) sameAttributes(o Stamp) bool {
	return s.Inode == o.Inode && s.Mode == o.Mode && s.UID == o.UID && s.GID == o.GID && s.Changed.Equal(o.Changed)
}
