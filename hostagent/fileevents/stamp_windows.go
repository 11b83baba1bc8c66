// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

func stampOf(info fs.FileInfo) Stamp {
	s := Stamp{Mode: info.Mode(), Modified: info.ModTime()}
	if !info.IsDir() { // what Windows says for folders changes by itself
		s.Size = info.Size()
	}
	return s
}

// born is when a file was made; zero where that is not known.
func born(_ string, info fs.FileInfo) time.Time {
	if d, ok := info.Sys().(*syscall.Win32FileAttributeData); ok {
		return time.Unix(0, d.CreationTime.Nanoseconds())
	}
	return time.Time{}
}

// remote reports whether others may change a folder without this system noticing: it is on another computer.
func remote(root *os.File) bool { return strings.HasPrefix(root.Name(), `\\`) }
