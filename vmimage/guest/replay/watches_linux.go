// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watches are the files of one FUSE mount that programs watch, by FUSE's numbers.
type watches struct {
	nodes map[uint64]bool
	// all: a watch is on more than a file, or on one that cannot be told.
	all bool
}

func (w watches) has(n Node) bool { return w.all || n.ID != 0 && w.nodes[n.ID] }

// scan reads who watches what from /proc. device is the mount's, as the kernel writes it there.
func scan(proc string, device uint32) watches {
	w := watches{nodes: map[uint64]bool{}}
	processes, err := os.ReadDir(proc)
	if err != nil {
		w.all = true
		return w
	}
	buf := make([]byte, 64)
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		w.process(proc+"/"+p.Name(), device, buf)
	}
	return w
}

// process looks at one process' descriptors. One that ends meanwhile watches nothing.
func (w *watches) process(dir string, device uint32, buf []byte) {
	folder, err := os.Open(dir + "/fd")
	if err != nil {
		return
	}
	names, _ := folder.Readdirnames(-1)
	at := int(folder.Fd())
	for _, fd := range names {
		n, err := unix.Readlinkat(at, fd, buf)
		if err != nil || n < len("anon_inode:") || buf[0] != 'a' {
			continue
		}
		switch string(buf[:n]) {
		case "anon_inode:inotify", "anon_inode:[fanotify]":
			if info, err := os.ReadFile(dir + "/fdinfo/" + fd); err == nil {
				w.parse(info, device)
			}
		}
	}
	_ = folder.Close() // only read
}

// parse reads the lines of one descriptor.
func (w *watches) parse(info []byte, device uint32) {
	for line := range bytes.Lines(info) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "inotify" && fields[0] != "fanotify" {
			continue
		}
		var handle string
		ours, file := false, false
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, ":")
			switch key {
			case "sdev":
				dev, err := strconv.ParseUint(value, 16, 32)
				ours = err == nil && uint32(dev) == device
			case "ino":
				file = true
			case "f_handle":
				handle = value
			case "mnt_id": // of a whole mount, which may be ours
				ours = true
			}
		}
		if ours {
			w.add(handle, file)
		}
	}
}

// add notes a watch by its file handle: the upper and the lower half of FUSE's number, and a generation.
func (w *watches) add(handle string, file bool) {
	b, err := hex.DecodeString(handle)
	if err != nil || len(b) < 8 || !file {
		w.all = true
		return
	}
	w.nodes[uint64(binary.NativeEndian.Uint32(b))<<32|uint64(binary.NativeEndian.Uint32(b[4:]))] = true
}
