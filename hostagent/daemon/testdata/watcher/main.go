// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command watcher prints what inotify says of a folder until a name in it is deleted. Once it watches, it makes the file "ready" there.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var kinds = []struct {
	bit  uint32
	name string
}{
	{unix.IN_CREATE, "CREATE"}, {unix.IN_MODIFY, "MODIFY"}, {unix.IN_CLOSE_WRITE, "CLOSE_WRITE"}, {unix.IN_ATTRIB, "ATTRIB"},
	{unix.IN_MOVED_FROM, "MOVED_FROM"}, {unix.IN_MOVED_TO, "MOVED_TO"}, {unix.IN_DELETE, "DELETE"},
}

func main() {
	if err := watch(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func watch(folder, last string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, folder, unix.IN_ALL_EVENTS); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "ready"), nil, 0o644); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) > 0; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
			for _, k := range kinds {
				if mask&k.bit != 0 {
					fmt.Println(k.name, name)
				}
			}
			if mask&unix.IN_DELETE != 0 && name == last {
				return nil
			}
		}
	}
}
