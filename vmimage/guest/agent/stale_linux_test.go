// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// believing is a folder served as virtiofsd does with cache=always: the kernel believes what it knows for a day.
type believing struct{ gofs.LoopbackNode }

var (
	_ gofs.NodeOpener         = (*believing)(nil)
	_ gofs.NodeOpendirHandler = (*believing)(nil)
	_ gofs.NodeWrapChilder    = (*believing)(nil)
)

func (b *believing) WrapChild(context.Context, gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &believing{gofs.LoopbackNode{RootData: b.RootData}}
}

func (b *believing) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := b.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return reading{h.(gofs.FileReader), h.(gofs.FileReleaser)}, fuse.FOPEN_KEEP_CACHE, 0
}

// reading is a file without more abilities: the kernel is not to read it past the server.
type reading struct {
	gofs.FileReader
	gofs.FileReleaser
}

func (b *believing) OpendirHandle(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := b.LoopbackNode.OpendirHandle(ctx, flags)
	return h, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR, errno
}

// mountBelieving mounts such a folder; it returns both sides of it.
func mountBelieving(t *testing.T) (host, guest string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts file systems: run as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no FUSE here: ", err)
	}
	host, guest = t.TempDir(), t.TempDir()
	var st syscall.Stat_t
	must(t, syscall.Stat(host, &st))
	served := &gofs.LoopbackRoot{Path: host, Dev: st.Dev}
	root := &believing{gofs.LoopbackNode{RootData: served}}
	served.RootNode = root
	day := 24 * time.Hour
	server, err := gofs.Mount(guest, root, &gofs.Options{EntryTimeout: &day, AttrTimeout: &day, MountOptions: fuse.MountOptions{FsName: "share", Name: "test", DirectMount: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return host, guest
}

// side is one side's view of a tree: names with contents, or what cannot be had of them.
func side(dir string) (seen []string) {
	var look func(name string)
	look = func(name string) {
		at := filepath.Join(dir, name)
		info, err := os.Lstat(at)
		if err != nil {
			seen = append(seen, name+" cannot be had")
			return
		}
		line := name + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(at)
			line += fmt.Sprintf(" %q %v", data, err != nil)
		}
		seen = append(seen, line)
		if !info.IsDir() {
			return
		}
		entries, err := os.ReadDir(at)
		if err != nil {
			seen = append(seen, name+" cannot be read")
		}
		for _, e := range entries {
			look(filepath.Join(name, e.Name()))
		}
	}
	look(".")
	return seen
}

func stale(names ...string) (list []proto.StaleName) {
	for _, n := range names {
		list = append(list, proto.StaleName{Path: []byte(n), Listed: true, Content: true})
	}
	return list
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, at, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644))
}

func TestStaleNames(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(t *testing.T, host string)
		stale  []proto.StaleName
	}{
		{"a file is made", func(t *testing.T, host string) { write(t, host+"/d/new", "new") }, stale("d/new")},
		{"a file is removed", func(t *testing.T, host string) { must(t, os.Remove(host+"/d/f")) }, stale("d/f")},
		{"a file is replaced", func(t *testing.T, host string) {
			write(t, host+"/d/tmp", "other")
			must(t, os.Rename(host+"/d/tmp", host+"/d/f"))
		}, stale("d/f", "d/tmp")},
		{"a file grows", func(t *testing.T, host string) { write(t, host+"/d/f", "longer than before") }, stale("d/f")},
		{"other content of the same size and time", func(t *testing.T, host string) {
			info, err := os.Stat(host + "/d/f")
			must(t, err)
			write(t, host+"/d/f", "NEW")
			must(t, os.Chtimes(host+"/d/f", info.ModTime(), info.ModTime()))
		}, stale("d/f")},
		{"attributes", func(t *testing.T, host string) { must(t, os.Chmod(host+"/d/f", 0o600)) }, []proto.StaleName{{Path: []byte("d/f")}}},
		{"a folder is made with files", func(t *testing.T, host string) { write(t, host+"/d/e/f/g", "deep") }, stale("d/e/f/g", "d/e/f", "d/e")},
		{"a folder is removed", func(t *testing.T, host string) { must(t, os.RemoveAll(host+"/d")) }, stale("d/f", "d/sub/g", "d/sub", "d")},
		{"a folder is moved", func(t *testing.T, host string) { must(t, os.Rename(host+"/d", host+"/moved")) }, stale("d", "moved")},
		{"a folder is replaced", func(t *testing.T, host string) {
			must(t, os.RemoveAll(host+"/d"))
			write(t, host+"/d/f", "of another folder")
		}, stale("d", "d/f")},
		{"a file takes a folder's place", func(t *testing.T, host string) {
			must(t, os.RemoveAll(host+"/d/sub"))
			write(t, host+"/d/sub", "file")
		}, stale("d/sub", "d/sub/g")},
		{"a name that is no text", func(t *testing.T, host string) { write(t, host+"/d/\xff\n", "odd") }, stale("d/\xff\n")},
		{"in the share's folder", func(t *testing.T, host string) { must(t, os.Rename(host+"/top", host+"/top2")) }, stale("top", "top2")},
		{"the share's folder itself", func(t *testing.T, host string) { must(t, os.Chmod(host, 0o711)) }, stale("")},
	} {
		for _, all := range []bool{false, true} {
			name := test.name
			if all {
				name += ", told as all"
			}
			t.Run(name, func(t *testing.T) {
				host, guest := mountBelieving(t)
				write(t, host+"/d/f", "old")
				write(t, host+"/d/sub/g", "g")
				write(t, host+"/top", "top")
				before := side(guest)
				side(guest) // once more: lists that were read are kept from now on
				test.change(t, host)
				if after := side(guest); !slices.Equal(after, before) {
					t.Logf("the kernel believed less than was expected: %q", after)
				}
				p := proto.Stale{Target: guest, Names: test.stale}
				if all {
					p = proto.Stale{Target: guest, All: true}
				}
				must(t, Stale(p))
				if got, want := side(guest), side(host); !slices.Equal(got, want) {
					t.Errorf("it shows\n%q\nand should\n%q", got, want)
				}
			})
		}
	}
}

// What programs use stays with the kernel when everything else is dropped, and is asked for.
func TestStaleAllInUse(t *testing.T) {
	host, guest := mountBelieving(t)
	write(t, host+"/a/b/f", "old")
	side(guest)
	open, err := os.Open(guest + "/a/b/f")
	must(t, err)
	defer open.Close()
	write(t, host+"/a/b/f", "longer")
	must(t, os.Rename(host+"/a", host+"/c"))
	must(t, Stale(proto.Stale{Target: guest, All: true}))
	if got, want := side(guest), side(host); !slices.Equal(got, want) {
		t.Errorf("it shows\n%q\nand should\n%q", got, want)
	}
	text := make([]byte, 20)
	if n, _ := open.ReadAt(text, 0); string(text[:n]) != "longer" {
		t.Errorf("the open file has %q", text[:n])
	}
}

func TestStaleElsewhere(t *testing.T) {
	for _, target := range []string{"relative", "/", t.TempDir()} {
		var refused *proto.Error
		if err := Stale(proto.Stale{Target: target, All: true}); !errors.As(err, &refused) {
			t.Errorf("%q: %v", target, err)
		}
	}
}

func TestWithin(t *testing.T) {
	mounts := parseMounts(strings.ReplaceAll(`1 0 0:1 / / rw - overlay none rw
2 1 0:40 / /src rw - virtiofs share0 rw
3 2 0:41 /x /src/volume rw - ext4 disk rw
4 1 0:40 /a/b /app rw - virtiofs share0 rw
`, "\t", ""))
	for name, want := range map[string]string{"/src": "/", "/src/a/f": "/a/f", "/app/c": "/a/b/c", "/src/volume/f": "none", "/srcs": "none", "/etc": "none"} {
		got, ok := within(mounts, "0:40", name)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s is at %q, not %q", name, got, want)
		}
	}
	used := map[string]bool{}
	addUsed(used, "/a/b/c (deleted)")
	addUsed(used, "/")
	if len(used) != 3 || !used["a/b/c"] || !used["a"] {
		t.Error(used)
	}
}

// A share that is read-only in the machine changes on the host all the same.
func TestStaleReadOnly(t *testing.T) {
	host, guest := mountBelieving(t)
	write(t, host+"/d/f", "old")
	write(t, host+"/d/g", "old")
	side(guest)
	must(t, unix.Mount("", guest, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	must(t, os.Remove(host+"/d/f"))
	write(t, host+"/d/g", "longer")
	must(t, Stale(proto.Stale{Target: guest, Names: stale("d/f", "d/g")}))
	if got, want := side(guest), side(host); !slices.Equal(got, want) {
		t.Errorf("it shows\n%q\nand should\n%q", got, want)
	}
}
