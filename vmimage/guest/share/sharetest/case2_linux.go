// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ptr(groups []uint32) unsafe.Pointer { return unsafe.Pointer(&groups[0]) }

// mode says that a file has a mode.
func mode(path string, due uint32) error {
	st, err := stat(path)
	if err == nil && st.Mode&0o7777 != due {
		err = fmt.Errorf("the mode is %o instead of %o", st.Mode&0o7777, due)
	}
	return err
}

func owner(path string, uid, gid uint32) error {
	st, err := stat(path)
	if err == nil && (st.Uid != uid || st.Gid != gid) {
		err = fmt.Errorf("the owner is %d:%d instead of %d:%d", st.Uid, st.Gid, uid, gid)
	}
	return err
}

// changed says whether a time was changed by what is done.
func changed(path string, time func(unix.Stat_t) unix.Timespec, do func() error, due bool) error {
	before, err := stat(path)
	if err != nil {
		return err
	}
	tick()
	if err := do(); err != nil {
		return err
	}
	after, err := stat(path)
	if err != nil {
		return err
	}
	if (time(before) != time(after)) != due {
		return fmt.Errorf("the time went from %v to %v; a change is due: %v", time(before), time(after), due)
	}
	return nil
}

func ctime(st unix.Stat_t) unix.Timespec { return st.Ctim }
func mtime(st unix.Stat_t) unix.Timespec { return st.Mtim }

// modeCases: modes and owners, and what changes them.
func modeCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	all := []Case{
		{"chmod", "changes ctime", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return changed(f(dir), ctime, func() error { return unix.Chmod(f(dir), 0o711) }, true) })
		}},
		{"chmod", "leaves mtime alone", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return changed(f(dir), mtime, func() error { return unix.Chmod(f(dir), 0o711) }, false) })
		}},
		{"chmod", "follows a symbolic link", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Symlink("f", dir+"/l") }, func() error { return unix.Chmod(dir+"/l", 0o642) }, func() error { return mode(f(dir), 0o642) })
		}},
		{"chmod", "takes set-group-id away from who is not in the group", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Chown(f(dir), alice, bob) }, func() error {
				return as(alice, alice, func() error { return unix.Chmod(f(dir), 0o2755) })
			}, func() error { return mode(f(dir), 0o755) })
		}},
		{"chown", "sets owner and group", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return unix.Chown(f(dir), 123, 456) }, func() error { return owner(f(dir), 123, 456) })
		}},
		{"chown", "takes set-user-id away when somebody unprivileged changes the group", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Chown(f(dir), alice, alice) }, func() error { return unix.Chmod(f(dir), 0o6755) }, func() error {
				return as(alice, alice, func() error { return unix.Chown(f(dir), -1, alice) })
			}, func() error { return mode(f(dir), 0o755) })
		}},
		{"chown", "changes ctime", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return changed(f(dir), ctime, func() error { return unix.Chown(f(dir), 1, 1) }, true) })
		}},
		{"chown", "of a symbolic link itself", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Symlink("f", dir+"/l") }, func() error { return os.Lchown(dir+"/l", 12, 34) }, func() error { return owner(dir+"/l", 12, 34) }, func() error { return owner(f(dir), 0, 0) })
		}},
		{"write", "by somebody unprivileged takes set-user-id away", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return unix.Chmod(f(dir), 0o6777) }, func() error {
				return as(alice, alice, func() error {
					h, err := os.OpenFile(f(dir), os.O_WRONLY, 0)
					if err != nil {
						return err
					}
					_, err = h.WriteString("x")
					return errors.Join(err, h.Close())
				})
			}, func() error { return mode(f(dir), 0o777) })
		}},
		{"mkdir", "inherits a folder's group where it has set-group-id", true, func(dir string) error {
			return steps(func() error { return os.Chown(dir, 0, bob) }, func() error { return unix.Chmod(dir, 0o2777) }, func() error {
				return as(alice, alice, func() error {
					return steps(func() error { return os.Mkdir(dir+"/d", 0o755) }, func() error { return touch(f(dir)) })
				})
			}, func() error { return owner(dir+"/d", alice, bob) }, func() error { return mode(dir+"/d", 0o2755) }, func() error { return owner(f(dir), alice, bob) })
		}},
	}
	for _, k := range kinds() {
		all = append(all, Case{k.name, "belongs to who makes it", false, func(dir string) error {
			if k.mode == unix.S_IFCHR || k.mode == unix.S_IFBLK {
				return steps(func() error { return k.make(f(dir)) }, func() error { return owner(f(dir), 0, 0) })
			}
			return steps(func() error { return shared(dir) }, func() error { return as(alice, bob, func() error { return k.make(f(dir)) }) }, func() error { return owner(f(dir), alice, bob) })
		}}, Case{k.name, "is what it was made as", false, func(dir string) error {
			return steps(func() error { return k.make(f(dir)) }, func() error {
				st, err := stat(f(dir))
				if err == nil && st.Mode&unix.S_IFMT != k.mode {
					err = fmt.Errorf("its mode is %o", st.Mode)
				}
				return err
			})
		}}, Case{k.name, "comes and goes with its folder's mtime", false, func(dir string) error {
			remove := func() error { return os.Remove(f(dir)) }
			return steps(func() error { return changed(dir, mtime, func() error { return k.make(f(dir)) }, true) }, func() error { return changed(dir, mtime, remove, true) })
		}})
	}
	return all
}

// openCases: open and its flags.
func openCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	opens := func(path string, flags int) error { return closed(unix.Open(path, flags|unix.O_CLOEXEC, 0o644)) }
	return []Case{
		{"open", "O_EXCL refuses what is there", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return want(opens(f(dir), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), unix.EEXIST) })
		}},
		{"open", "O_EXCL refuses a link that leads nowhere", false, func(dir string) error {
			return steps(func() error { return os.Symlink("none", f(dir)) }, func() error { return want(opens(f(dir), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), unix.EEXIST) })
		}},
		{"open", "O_TRUNC empties", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "text") }, func() error { return opens(f(dir), unix.O_WRONLY|unix.O_TRUNC) }, func() error { return contains(f(dir), "") })
		}},
		{"open", "O_TRUNC changes mtime", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "text") }, func() error {
				return changed(f(dir), mtime, func() error { return opens(f(dir), unix.O_WRONLY|unix.O_TRUNC) }, true)
			})
		}},
		{"open", "O_CREAT leaves what is there alone", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "text") }, func() error { return opens(f(dir), unix.O_WRONLY|unix.O_CREAT) }, func() error { return contains(f(dir), "text") })
		}},
		{"open", "O_DIRECTORY refuses a file", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return want(opens(f(dir), unix.O_DIRECTORY), unix.ENOTDIR) })
		}},
		{"open", "O_NOFOLLOW refuses a link", false, func(dir string) error {
			return steps(func() error { return os.Symlink("x", f(dir)) }, func() error { return want(opens(f(dir), unix.O_NOFOLLOW|unix.O_RDONLY), unix.ELOOP) })
		}},
		{"open", "EISDIR for writing a folder", false, func(dir string) error { return want(opens(dir, unix.O_WRONLY), unix.EISDIR) }},
		{"open", "ENXIO for writing a fifo that nobody reads", false, func(dir string) error {
			return steps(func() error { return unix.Mkfifo(f(dir), 0o644) }, func() error { return want(opens(f(dir), unix.O_WRONLY|unix.O_NONBLOCK), unix.ENXIO) })
		}},
		{"open", "ENXIO for a socket", false, func(dir string) error {
			return steps(func() error { return unix.Mknod(f(dir), unix.S_IFSOCK|0o644, 0) }, func() error { return want(opens(f(dir), unix.O_RDWR), unix.ENXIO) })
		}},
		{"open", "EACCES for reading what may not be read", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Chmod(f(dir), 0o200) }, func() error { return shared(dir) }, func() error {
				return as(alice, alice, func() error { return want(opens(f(dir), unix.O_RDONLY), unix.EACCES) })
			})
		}},
		{"open", "EACCES for writing what may not be written", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return shared(dir) }, func() error {
				return as(alice, alice, func() error { return want(opens(f(dir), unix.O_WRONLY), unix.EACCES) })
			})
		}},
		{"open", "a file that only its owner may not read is read by the group", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return os.Chmod(f(dir), 0o040) }, func() error { return os.Chown(f(dir), alice, bob) }, func() error { return shared(dir) }, func() error {
				return as(alice, bob, func() error { return want(opens(f(dir), unix.O_RDONLY), unix.EACCES) })
			}, func() error { return as(bob, bob, func() error { return want(opens(f(dir), unix.O_RDONLY), 0) }) })
		}},
		{"open", "a new read-only file can be written by who makes it", false, func(dir string) error {
			fd, err := unix.Open(f(dir), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
			if err != nil {
				return err
			}
			_, err = unix.Write(fd, []byte("x"))
			return errors.Join(err, unix.Close(fd), contains(f(dir), "x"), mode(f(dir), 0o444))
		}},
		{"open", "O_APPEND writes at the end", false, func(dir string) error {
			h, err := os.OpenFile(f(dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			g, err := os.OpenFile(f(dir), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return errors.Join(err, h.Close())
			}
			for i := range 20 {
				to := h
				if i%2 == 1 {
					to = g
				}
				if _, err := fmt.Fprintf(to, "%02d\n", i); err != nil {
					return errors.Join(err, h.Close(), g.Close())
				}
			}
			due := ""
			for i := range 20 {
				due += fmt.Sprintf("%02d\n", i)
			}
			return errors.Join(h.Close(), g.Close(), contains(f(dir), due))
		}},
	}
}

// linkCases: link, symlink, unlink, rmdir.
func linkCases() []Case {
	f, g := func(dir string) string { return dir + "/f" }, func(dir string) string { return dir + "/g" }
	links := func(path string, due uint64) error {
		st, err := stat(path)
		if err == nil && uint64(st.Nlink) != due { //nolint:unconvert // it has another type on arm64
			err = fmt.Errorf("it has %d names instead of %d", st.Nlink, due)
		}
		return err
	}
	return []Case{
		{"link", "counts names", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return links(f(dir), 1) }, func() error { return os.Link(f(dir), g(dir)) }, func() error { return links(f(dir), 2) }, func() error { return links(g(dir), 2) },
				func() error { return os.Remove(f(dir)) }, func() error { return links(g(dir), 1) })
		}},
		{"link", "is one file under two names", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "one") }, func() error { return os.Link(f(dir), g(dir)) }, func() error { return contains(g(dir), "one") }, func() error { return write(g(dir), "another") }, func() error { return contains(f(dir), "another") }, func() error {
				a, _ := stat(f(dir))
				b, err := stat(g(dir))
				if a.Ino != b.Ino {
					err = errors.New("the two have different numbers")
				}
				return err
			})
		}},
		{"link", "changes ctime", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return changed(f(dir), ctime, func() error { return os.Link(f(dir), g(dir)) }, true) })
		}},
		{"link", "EPERM for a folder", false, func(dir string) error {
			return steps(func() error { return os.Mkdir(f(dir), 0o755) }, func() error { return want(unix.Link(f(dir), g(dir)), unix.EPERM) })
		}},
		{"link", "EEXIST for a name that is taken", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return touch(g(dir)) }, func() error { return want(unix.Link(f(dir), g(dir)), unix.EEXIST) })
		}},
		{"symlink", "gives back what it was made with", false, func(dir string) error {
			for _, to := range []string{"x", "/absolute/path", "../..", "a b\nc", string(make1(1000))} {
				if err := os.Symlink(to, f(dir)); err != nil {
					return err
				}
				if got, err := os.Readlink(f(dir)); err != nil || got != to {
					return fmt.Errorf("%q instead of %q, %w", short([]byte(got)), short([]byte(to)), err)
				}
				if err := os.Remove(f(dir)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"symlink", "leads to files, folders and nowhere", false, func(dir string) error {
			return steps(func() error { return os.Mkdir(dir+"/d", 0o755) }, func() error { return write(dir+"/d/x", "text") }, func() error { return os.Symlink("d", f(dir)) }, func() error { return contains(f(dir)+"/x", "text") },
				func() error { return os.Symlink("none", g(dir)) }, func() error { return want(unix.Stat(g(dir), new(unix.Stat_t)), unix.ENOENT) })
		}},
		{"unlink", "EISDIR for a folder", false, func(dir string) error {
			return steps(func() error { return os.Mkdir(f(dir), 0o755) }, func() error { return want(unix.Unlink(f(dir)), unix.EISDIR) })
		}},
		{"unlink", "an open file stays usable without a name", false, func(dir string) error {
			h, err := os.OpenFile(f(dir), os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			defer h.Close()
			return steps(func() error { _, err := h.WriteString("before"); return err }, func() error { return os.Remove(f(dir)) }, func() error { _, err := h.WriteString(" after"); return err }, func() error { return h.Sync() }, func() error {
				buf := make([]byte, 12)
				n, err := h.ReadAt(buf, 0)
				if string(buf[:n]) != "before after" {
					return fmt.Errorf("it has %q, %w", buf[:n], err)
				}
				st, err := h.Stat()
				if err == nil && st.Size() != 12 {
					err = fmt.Errorf("its size is %d", st.Size())
				}
				return err
			}, func() error { return h.Truncate(3) }, func() error { return touch(f(dir)) }, func() error { return contains(f(dir), "") })
		}},
		{"rmdir", "ENOTEMPTY for a folder with something in it", false, func(dir string) error {
			return steps(func() error { return os.Mkdir(f(dir), 0o755) }, func() error { return touch(f(dir) + "/x") }, func() error { return want(unix.Rmdir(f(dir)), unix.ENOTEMPTY) })
		}},
		{"rmdir", "ENOTDIR for a file", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return want(unix.Rmdir(f(dir)), unix.ENOTDIR) })
		}},
		{"rmdir", "EINVAL for \".\"", false, func(dir string) error {
			return steps(func() error { return os.Mkdir(f(dir), 0o755) }, func() error { return want(unix.Rmdir(f(dir)+"/."), unix.EINVAL) })
		}},
		{"mkdir", "counts sub-folders or has one name", false, func(dir string) error {
			return steps(func() error { return os.MkdirAll(f(dir)+"/a/b", 0o755) }, func() error {
				st, err := stat(f(dir))
				if err == nil && st.Nlink != 3 && st.Nlink != 1 {
					err = fmt.Errorf("it has %d", st.Nlink)
				}
				return err
			})
		}},
	}
}

func make1(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'l'
	}
	return b
}

// renameCases: rename.
func renameCases() []Case {
	a, b := func(dir string) string { return dir + "/a" }, func(dir string) string { return dir + "/b" }
	folder := func(p string) error { return os.Mkdir(p, 0o755) }
	refuse := func(name string, make1, make2 func(string) error, due unix.Errno) Case {
		return Case{"rename", name, false, func(dir string) error {
			return steps(func() error { return make1(a(dir)) }, func() error { return make2(b(dir)) }, func() error { return want(unix.Rename(a(dir), b(dir)), due) })
		}}
	}
	full := func(p string) error {
		return steps(func() error { return folder(p) }, func() error { return touch(p + "/x") })
	}
	all := []Case{
		refuse("EISDIR for a file over a folder", touch, folder, unix.EISDIR), refuse("ENOTDIR for a folder over a file", folder, touch, unix.ENOTDIR),
		refuse("ENOTEMPTY over a folder with something in it", folder, full, unix.ENOTEMPTY), refuse("a folder over an empty one", full, folder, 0),
		{"rename", "EINVAL into itself", false, func(dir string) error {
			return steps(func() error { return folder(a(dir)) }, func() error { return want(unix.Rename(a(dir), a(dir)+"/x"), unix.EINVAL) })
		}},
		{"rename", "a file over a file, as editors save", false, func(dir string) error {
			return steps(func() error { return write(a(dir), "new") }, func() error { return write(b(dir), "old") }, func() error { return contains(b(dir), "old") }, func() error { return os.Rename(a(dir), b(dir)) }, func() error { return contains(b(dir), "new") },
				func() error { return want(unix.Stat(a(dir), new(unix.Stat_t)), unix.ENOENT) })
		}},
		{"rename", "who has the old file open keeps it", false, func(dir string) error {
			if err := steps(func() error { return write(a(dir), "new") }, func() error { return write(b(dir), "old") }); err != nil {
				return err
			}
			h, err := os.Open(b(dir))
			if err != nil {
				return err
			}
			defer h.Close()
			return steps(func() error { return os.Rename(a(dir), b(dir)) }, func() error {
				buf := make([]byte, 3)
				_, err := h.ReadAt(buf, 0)
				if err == nil && string(buf) != "old" {
					err = fmt.Errorf("it reads %q", buf)
				}
				return err
			})
		}},
		{"rename", "a folder takes along what is in it, also what is open", false, func(dir string) error {
			if err := full(a(dir)); err != nil {
				return err
			}
			h, err := os.OpenFile(a(dir)+"/x", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return steps(func() error { _, err := h.WriteString("one "); return err }, func() error { return os.Rename(a(dir), b(dir)) }, func() error { _, err := h.WriteString("two"); return err }, h.Close, func() error { return contains(b(dir)+"/x", "one two") })
		}},
		{"rename", "two names of one file stay", false, func(dir string) error {
			return steps(func() error { return touch(a(dir)) }, func() error { return os.Link(a(dir), b(dir)) }, func() error { return os.Rename(a(dir), b(dir)) }, func() error { _, err := stat(a(dir)); return err })
		}},
		{"rename", "RENAME_NOREPLACE refuses a name that is taken", false, func(dir string) error {
			no := func() error {
				return unix.Renameat2(unix.AT_FDCWD, a(dir), unix.AT_FDCWD, b(dir), unix.RENAME_NOREPLACE)
			}
			return steps(func() error { return write(a(dir), "a") }, func() error { return write(b(dir), "b") }, func() error { return want(no(), unix.EEXIST) }, func() error { return os.Remove(b(dir)) }, no, func() error { return contains(b(dir), "a") })
		}},
		{"rename", "RENAME_EXCHANGE exchanges", false, func(dir string) error {
			return steps(func() error { return write(a(dir), "a") }, func() error { return full(b(dir)) }, func() error {
				return unix.Renameat2(unix.AT_FDCWD, a(dir), unix.AT_FDCWD, b(dir), unix.RENAME_EXCHANGE)
			},
				func() error { return contains(b(dir), "a") }, func() error { return contains(a(dir)+"/x", "") })
		}},
	}
	for _, k := range kinds() {
		all = append(all, Case{"rename", "a " + k.name, false, func(dir string) error {
			return steps(func() error { return k.make(a(dir)) }, func() error { return os.Rename(a(dir), b(dir)) }, func() error {
				st, err := stat(b(dir))
				if err == nil && st.Mode&unix.S_IFMT != k.mode {
					err = fmt.Errorf("its mode became %o", st.Mode)
				}
				return err
			}, func() error { return want(unix.Lstat(a(dir), new(unix.Stat_t)), unix.ENOENT) })
		}})
	}
	return all
}

// timeCases: utimensat.
func timeCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	set := func(dir string, a, m unix.Timespec) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, f(dir), []unix.Timespec{a, m}, unix.AT_SYMLINK_NOFOLLOW)
	}
	same := func(dir string, a, m unix.Timespec) error {
		st, err := stat(f(dir))
		if err == nil && (st.Atim != a || st.Mtim != m) {
			err = fmt.Errorf("the times are %v and %v instead of %v and %v", st.Atim, st.Mtim, a, m)
		}
		return err
	}
	one, two := unix.Timespec{Sec: 1000000000, Nsec: 123456000}, unix.Timespec{Sec: 2000000000, Nsec: 999999000}
	var all []Case
	for _, k := range kinds()[:4] {
		all = append(all, Case{"utimensat", "sets both times of a " + k.name, false, func(dir string) error {
			return steps(func() error { return k.make(f(dir)) }, func() error { return set(dir, one, two) }, func() error { return same(dir, one, two) })
		}})
	}
	return append(all,
		Case{"utimensat", "UTIME_OMIT leaves a time alone", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return set(dir, one, two) }, func() error { return set(dir, unix.Timespec{Nsec: unix.UTIME_OMIT}, one) }, func() error { return same(dir, one, one) })
		}},
		Case{"utimensat", "UTIME_NOW is now", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return set(dir, one, one) }, func() error { return set(dir, one, unix.Timespec{Nsec: unix.UTIME_NOW}) }, func() error {
				st, err := stat(f(dir))
				if err == nil && time.Since(time.Unix(st.Mtim.Unix())).Abs() > time.Hour {
					err = fmt.Errorf("it is %v", st.Mtim)
				}
				return err
			})
		}},
		Case{"utimensat", "EACCES for another's file", true, func(dir string) error {
			now := unix.Timespec{Nsec: unix.UTIME_NOW}
			return steps(func() error { return touch(f(dir)) }, func() error { return shared(dir) }, func() error { return as(alice, alice, func() error { return want(set(dir, now, now), unix.EACCES) }) })
		}},
		Case{"utimensat", "times before 1970", false, func(dir string) error {
			old := unix.Timespec{Sec: -100}
			return steps(func() error { return touch(f(dir)) }, func() error { return set(dir, old, old) }, func() error { return same(dir, old, old) })
		}},
	)
}
