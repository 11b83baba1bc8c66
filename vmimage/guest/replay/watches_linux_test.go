// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package replay

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The lines are a kernel's own.
func TestWatchesParse(t *testing.T) {
	const ours = 0x398
	for _, c := range []struct {
		name, text string
		want       []uint64
		all        bool
	}{
		{"inotify", "pos:\t0\nflags:\t02004000\nmnt_id:\t15\nino:\t1057\n" +
			"inotify wd:2 ino:3ec sdev:398 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000000400000001000000\n" +
			"inotify wd:1 ino:3e9 sdev:398 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:010000000200000000000000\n",
			[]uint64{4, 1<<32 | 2}, false},
		{"of another file system", "inotify wd:1 ino:2 sdev:fe00001 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0200000000000000\n", nil, false},
		{"fanotify", "fanotify flags:10 event-flags:0\nfanotify ino:3ec sdev:398 mflags:0 mask:3b ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000000700000001000000\n",
			[]uint64{7}, false},
		{"fanotify on a mount", "fanotify flags:10 event-flags:0\nfanotify mnt_id:12 mflags:0 mask:3b ignored_mask:0\n", nil, true},
		{"fanotify on the file system", "fanotify sdev:398 mflags:0 mask:3b ignored_mask:0\n", nil, true},
		{"without a handle", "inotify wd:1 ino:3e9 sdev:398 mask:fff ignored_mask:0\n", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := watches{nodes: map[uint64]bool{}}
			w.parse([]byte(c.text), ours)
			slices.Sort(c.want)
			if got := slices.Sorted(maps.Keys(w.nodes)); !slices.Equal(got, c.want) || w.all != c.all {
				t.Errorf("watched: %v, all %v; want %v, %v", got, w.all, c.want, c.all)
			}
		})
	}
}

// A process is found by what it has open, and ones that watch nothing cost no reading.
func TestWatchesScan(t *testing.T) {
	proc := t.TempDir()
	for _, dir := range []string{"7/fd", "7/fdinfo", "8/fd", "8/fdinfo", "self/fd"} {
		if err := os.MkdirAll(filepath.Join(proc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"7/fd/3": "anon_inode:inotify", "7/fd/4": "/dev/null", "8/fd/3": "socket:[1]"} {
		if err := os.Symlink(to, filepath.Join(proc, link)); err != nil {
			t.Fatal(err)
		}
	}
	line := []byte("inotify wd:1 ino:3e9 sdev:5 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000000900000001000000\n")
	if err := os.WriteFile(filepath.Join(proc, "7/fdinfo/3"), line, 0o644); err != nil {
		t.Fatal(err)
	}
	w := scan(proc, 5)
	if w.all || len(w.nodes) != 1 || !w.nodes[9] {
		t.Errorf("watched: %v, all %v", w.nodes, w.all)
	}
	if w := scan(filepath.Join(proc, "none"), 5); !w.all {
		t.Error("without /proc somebody may watch")
	}
}

func BenchmarkWatchesScan(b *testing.B) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for b.Loop() {
		scan("/proc", 1)
	}
}
