// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Case is one statement about a file system. Run is given an empty folder and returns what does not hold.
type Case struct {
	// Group is the call that it is about, or "tools" for what developers' tools rely on.
	Group, Name string
	// Owners: it is about owners and permissions, and needs a file system that keeps those.
	Owners bool
	Run    func(dir string) error
}

// Cases are all cases, in groups. They run as root.
func Cases() []Case {
	var all []Case
	for _, group := range [][]Case{
		pathCases(), permissionCases(), modeCases(), openCases(), linkCases(), renameCases(), sizeCases(), timeCases(), specialCases(), lockCases(), memoryCases(), nameCases(), toolCases(),
	} {
		all = append(all, group...)
	}
	return all
}

// want says that a call failed as it should; 0: that it did not.
func want(err error, errno syscall.Errno) error {
	var e syscall.Errno
	switch {
	case errno == 0 && err == nil:
		return nil
	case errno == 0:
		return err
	case err == nil:
		return fmt.Errorf("there was no error, %q was due", errno.Error())
	case !errors.As(err, &e):
		return fmt.Errorf("%w, %q was due", err, errno.Error())
	case e != errno:
		return fmt.Errorf("%w, %q was due", err, errno.Error())
	}
	return nil
}

// steps runs checks until one fails.
func steps(list ...func() error) error {
	for i, f := range list {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// As runs f as another user, without root's rights, on a thread of its own that ends with it.
func as(uid, gid int, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks
		groups := []uint32{uint32(gid)}
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(ptr(groups)), 0); e != 0 {
			result <- e
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
			result <- e
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			result <- e
			return
		}
		result <- f()
	}()
	return <-result
}

// Users that are nobody.
const (
	alice = 65534
	bob   = 65533
)

func stat(path string) (st unix.Stat_t, err error) { return st, unix.Lstat(path, &st) }

func touch(path string) error {
	return os.WriteFile(path, nil, 0o644)
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

func contains(path, text string) error {
	got, err := os.ReadFile(path)
	if err == nil && string(got) != text {
		err = fmt.Errorf("%q has %q instead of %q", filepath.Base(path), short(got), short([]byte(text)))
	}
	return err
}

func short(b []byte) string {
	if len(b) > 40 {
		return string(b[:40]) + "…"
	}
	return string(b)
}

// open makes the folder itself usable by others.
func shared(dir string) error { return os.Chmod(dir, 0o777) }

// call is a call that takes a path of something that is there, or of something to make.
type call struct {
	name string
	do   func(path string) error
	// make: the path's last component must not be there.
	make bool
}

func calls() []call {
	return []call{
		{"chmod", func(p string) error { return unix.Chmod(p, 0o600) }, false},
		{"chown", func(p string) error { return unix.Chown(p, -1, -1) }, false},
		{"lchown", func(p string) error { return unix.Lchown(p, -1, -1) }, false},
		{"truncate", func(p string) error { return unix.Truncate(p, 10) }, false},
		{"open", func(p string) error { return closed(unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)) }, false},
		{"stat", func(p string) error { return unix.Stat(p, new(unix.Stat_t)) }, false},
		{"utimensat", func(p string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, make([]unix.Timespec, 2), 0) }, false},
		{"unlink", unix.Unlink, false},
		{"rmdir", unix.Rmdir, false},
		{"link", func(p string) error { return unix.Link(p, p+"2") }, false},
		{"rename", func(p string) error { return unix.Rename(p, p+"2") }, false},
		{"mkdir", func(p string) error { return unix.Mkdir(p, 0o755) }, true},
		{"mkfifo", func(p string) error { return unix.Mkfifo(p, 0o644) }, true},
		{"mknod", func(p string) error { return unix.Mknod(p, unix.S_IFREG|0o644, 0) }, true},
		{"symlink", func(p string) error { return unix.Symlink("x", p) }, true},
		{"creat", func(p string) error { return closed(unix.Open(p, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)) }, true},
	}
}

func closed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// pathCases: what every call says of a path that leads nowhere.
func pathCases() []Case {
	var all []Case
	long, path := strings.Repeat("n", 256), strings.Repeat("d/", 2100)
	for _, c := range calls() {
		add := func(name string, run func(dir string) error) {
			all = append(all, Case{Group: c.name, Name: name, Run: run})
		}
		add("ENOTDIR where a component of the path is no folder", func(dir string) error {
			return steps(func() error { return touch(dir + "/f") }, func() error { return want(c.do(dir+"/f/x"), unix.ENOTDIR) })
		})
		add("ENOENT where a component of the path is not there", func(dir string) error { return want(c.do(dir+"/none/x"), unix.ENOENT) })
		add("ENAMETOOLONG for a name of 256 bytes", func(dir string) error { return want(c.do(dir+"/"+long), unix.ENAMETOOLONG) })
		add("ENAMETOOLONG for a path of more than 4,096 bytes", func(dir string) error { return want(c.do(dir+"/"+path), unix.ENAMETOOLONG) })
		add("ELOOP for links in a circle", func(dir string) error {
			return steps(func() error { return unix.Symlink("b", dir+"/a") }, func() error { return unix.Symlink("a", dir+"/b") }, func() error { return want(c.do(dir+"/a/x"), unix.ELOOP) })
		})
		if c.make {
			for _, kind := range kinds() {
				if c.name == "creat" {
					continue
				}
				add("EEXIST where there is a "+kind.name, func(dir string) error {
					return steps(func() error { return kind.make(dir + "/x") }, func() error { return want(c.do(dir+"/x"), unix.EEXIST) })
				})
			}
		} else {
			add("ENOENT for a name that is not there", func(dir string) error { return want(c.do(dir+"/none"), unix.ENOENT) })
		}
	}
	return all
}

// kind is a kind of file.
type kind struct {
	name string
	mode uint32
	make func(path string) error
}

func kinds() []kind {
	return []kind{
		{"file", unix.S_IFREG, touch},
		{"folder", unix.S_IFDIR, func(p string) error { return os.Mkdir(p, 0o755) }},
		{"symbolic link", unix.S_IFLNK, func(p string) error { return os.Symlink("nowhere", p) }},
		{"fifo", unix.S_IFIFO, func(p string) error { return unix.Mkfifo(p, 0o644) }},
		{"socket", unix.S_IFSOCK, func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) }},
		{"character device", unix.S_IFCHR, func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) }},
		{"block device", unix.S_IFBLK, func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o644, int(unix.Mkdev(7, 200))) }},
	}
}

// permissionCases: who may do what.
func permissionCases() []Case {
	var all []Case
	for _, c := range calls() {
		all = append(all, Case{Group: c.name, Name: "EACCES where a folder on the way may not be searched", Owners: true, Run: func(dir string) error {
			return steps(func() error { return shared(dir) }, func() error { return os.Mkdir(dir+"/d", 0o700) }, func() error { return touch(dir + "/d/f") }, func() error {
				return as(alice, alice, func() error { return want(c.do(dir+"/d/f"), unix.EACCES) })
			})
		}})
		if c.make || c.name == "unlink" || c.name == "rename" || c.name == "link" {
			all = append(all, Case{Group: c.name, Name: "EACCES where the folder may not be written", Owners: true, Run: func(dir string) error {
				name := dir + "/d/f"
				return steps(func() error { return shared(dir) }, func() error { return os.Mkdir(dir+"/d", 0o755) }, func() error {
					if c.make {
						return nil
					}
					return steps(func() error { return touch(name) }, func() error { return os.Chown(name, alice, alice) })
				}, func() error { return as(alice, alice, func() error { return want(c.do(name), unix.EACCES) }) })
			}})
		}
	}
	for _, c := range calls()[:2] {
		all = append(all, Case{Group: c.name, Name: "EPERM for who is not the owner", Owners: true, Run: func(dir string) error {
			return steps(func() error { return shared(dir) }, func() error { return touch(dir + "/f") }, func() error { return os.Chown(dir+"/f", bob, bob) }, func() error {
				return as(alice, alice, func() error {
					if c.name == "chown" {
						return want(unix.Chown(dir+"/f", alice, -1), unix.EPERM)
					}
					return want(c.do(dir+"/f"), unix.EPERM)
				})
			})
		}})
	}
	return append(all, stickyCases()...)
}

// stickyCases: in a folder with the sticky bit one removes and renames only what is one's own.
func stickyCases() []Case {
	var all []Case
	for _, c := range []struct {
		name string
		do   func(p string) error
	}{{"unlink", unix.Unlink}, {"rename", func(p string) error { return unix.Rename(p, p+"2") }}} {
		for _, mine := range []bool{true, false} {
			name, due := "EPERM for another's file in a sticky folder", unix.EPERM
			owner := bob
			if mine {
				name, due, owner = "one's own file in another's sticky folder", 0, alice
			}
			all = append(all, Case{Group: c.name, Name: name, Owners: true, Run: func(dir string) error {
				return steps(func() error { return os.Chmod(dir, 0o777|os.ModeSticky) }, func() error { return touch(dir + "/f") }, func() error { return os.Chown(dir+"/f", owner, owner) }, func() error {
					return as(alice, alice, func() error { return want(c.do(dir+"/f"), due) })
				})
			}})
		}
	}
	return all
}

// tick lets the clock of file times go on.
func tick() { <-time.After(20 * time.Millisecond) }
