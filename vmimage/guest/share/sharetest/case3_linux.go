// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// withFile makes a file, open for reading and writing.
func withFile(path string, do func(h *os.File) error) error {
	h, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(h), h.Close())
}

// sizeCases: truncate, holes, fallocate.
func sizeCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	return []Case{
		{"truncate", "shortens and lengthens with zeros", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "12345678") }, func() error { return os.Truncate(f(dir), 3) }, func() error { return contains(f(dir), "123") }, func() error { return os.Truncate(f(dir), 5) }, func() error { return contains(f(dir), "123\x00\x00") })
		}},
		{"truncate", "changes mtime", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return changed(f(dir), mtime, func() error { return os.Truncate(f(dir), 9) }, true) })
		}},
		{"truncate", "EISDIR for a folder", false, func(dir string) error { return want(unix.Truncate(dir, 0), unix.EISDIR) }},
		{"truncate", "EINVAL for a length below zero", false, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return want(unix.Truncate(f(dir), -1), unix.EINVAL) })
		}},
		{"truncate", "EACCES for what may not be written", true, func(dir string) error {
			return steps(func() error { return touch(f(dir)) }, func() error { return shared(dir) }, func() error {
				return as(alice, alice, func() error { return want(unix.Truncate(f(dir), 1), unix.EACCES) })
			})
		}},
		{"fallocate", "lengthens", false, func(dir string) error {
			return withFile(f(dir), func(h *os.File) error {
				return steps(func() error { return unix.Fallocate(int(h.Fd()), 0, 0, 5000) }, func() error {
					st, err := h.Stat()
					if err == nil && st.Size() != 5000 {
						err = fmt.Errorf("its size is %d", st.Size())
					}
					return err
				})
			})
		}},
		{"fallocate", "FALLOC_FL_KEEP_SIZE does not", false, func(dir string) error {
			return steps(func() error {
				return withFile(f(dir), func(h *os.File) error { return unix.Fallocate(int(h.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 5000) })
			}, func() error { return contains(f(dir), "") })
		}},
		{"lseek", "SEEK_HOLE and SEEK_DATA find a hole", false, func(dir string) error {
			return withFile(f(dir), func(h *os.File) error {
				if _, err := h.WriteAt(bytes.Repeat([]byte("x"), 4096), 1<<20); err != nil {
					return err
				}
				data, err := unix.Seek(int(h.Fd()), 0, unix.SEEK_DATA)
				hole, holeErr := unix.Seek(int(h.Fd()), 0, unix.SEEK_HOLE)
				if err != nil || holeErr != nil || data <= 0 || data > 1<<20 || hole != 0 {
					return fmt.Errorf("data at %d (%w), a hole at %d (%w)", data, err, hole, holeErr)
				}
				st, err := h.Stat()
				if err == nil && st.Size() != 1<<20+4096 {
					err = fmt.Errorf("its size is %d", st.Size())
				}
				return err
			})
		}},
		{"copy_file_range", "copies between files", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "some text") }, func() error {
				return withFile(f(dir), func(from *os.File) error {
					return withFile(dir+"/to", func(to *os.File) error {
						n, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, 100, 0)
						if err == nil && n != 9 {
							err = fmt.Errorf("%d bytes", n)
						}
						return err
					})
				})
			}, func() error { return contains(dir+"/to", "some text") })
		}},
		{"statfs", "tells the size", false, func(dir string) error {
			var st unix.Statfs_t
			err := unix.Statfs(dir, &st)
			if err == nil && (st.Blocks == 0 || st.Bsize == 0) {
				err = fmt.Errorf("%+v", st)
			}
			return err
		}},
	}
}

// specialCases: fifos and sockets that are used.
func specialCases() []Case {
	return []Case{
		{"mkfifo", "carries bytes", false, func(dir string) error {
			p := dir + "/p"
			if err := unix.Mkfifo(p, 0o644); err != nil {
				return err
			}
			wrote := make(chan error, 1)
			go func() { wrote <- os.WriteFile(p, []byte("through"), 0) }()
			return errors.Join(contains(p, "through"), <-wrote)
		}},
		{"socket", "can be listened at", false, func(dir string) error {
			l, err := net.Listen("unix", dir+"/s")
			if err != nil {
				return err
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					c.Close()
				}
			}()
			c, err := net.Dial("unix", dir+"/s")
			if err != nil {
				return err
			}
			return c.Close()
		}},
	}
}

// lockCases: flock and fcntl.
func lockCases() []Case {
	try := func(path string, lock func(fd int) error) error {
		return withFile(path, func(a *os.File) error {
			return withFile(path, func(b *os.File) error {
				return steps(func() error { return lock(int(a.Fd())) }, func() error { return want(lock(int(b.Fd())), unix.EAGAIN) }, a.Close, func() error { return lock(int(b.Fd())) })
			})
		})
	}
	ignoreClosed := func(err error) error {
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	return []Case{
		{"flock", "is exclusive", false, func(dir string) error {
			return ignoreClosed(try(dir+"/f", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }))
		}},
		{"fcntl", "locks of open files are exclusive", false, func(dir string) error {
			return ignoreClosed(try(dir+"/f", func(fd int) error {
				return unix.FcntlFlock(uintptr(fd), 37, &unix.Flock_t{Type: unix.F_WRLCK, Len: 10})
			})) // F_OFD_SETLK
		}},
		{"fcntl", "locks of parts do not meet", false, func(dir string) error {
			return withFile(dir+"/f", func(a *os.File) error {
				return withFile(dir+"/f", func(b *os.File) error {
					at := func(h *os.File, start int64) error {
						return unix.FcntlFlock(h.Fd(), 37, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 10})
					}
					return steps(func() error { return at(a, 0) }, func() error { return at(b, 10) }, func() error { return want(at(b, 5), unix.EAGAIN) })
				})
			})
		}},
	}
}

// memoryCases: mmap.
func memoryCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	mapped := func(path string, flags int, do func(h *os.File, m []byte) error) error {
		return withFile(path, func(h *os.File) error {
			if err := h.Truncate(8192); err != nil {
				return err
			}
			m, err := unix.Mmap(int(h.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, flags)
			if err != nil {
				return err
			}
			return errors.Join(do(h, m), unix.Munmap(m))
		})
	}
	return []Case{
		{"mmap", "what is written to shared memory is in the file", false, func(dir string) error {
			return steps(func() error {
				return mapped(f(dir), unix.MAP_SHARED, func(_ *os.File, m []byte) error { copy(m[4090:], "over a page"); return unix.Msync(m, unix.MS_SYNC) })
			}, func() error {
				got, err := os.ReadFile(f(dir))
				if err == nil && string(got[4090:4101]) != "over a page" {
					err = fmt.Errorf("it has %q", got[4090:4101])
				}
				return err
			})
		}},
		{"mmap", "what is written to the file is in shared memory", false, func(dir string) error {
			return mapped(f(dir), unix.MAP_SHARED, func(h *os.File, m []byte) error {
				if _, err := h.WriteAt([]byte("text"), 100); err != nil {
					return err
				}
				if string(m[100:104]) != "text" {
					return fmt.Errorf("it has %q", m[100:104])
				}
				return nil
			})
		}},
		{"mmap", "private memory stays private", false, func(dir string) error {
			return mapped(f(dir), unix.MAP_PRIVATE, func(h *os.File, m []byte) error {
				copy(m, "mine")
				buf := make([]byte, 4)
				_, err := h.ReadAt(buf, 0)
				if err == nil && string(buf) != "\x00\x00\x00\x00" {
					err = fmt.Errorf("the file has %q", buf)
				}
				return err
			})
		}},
	}
}

// nameCases: odd names.
func nameCases() []Case {
	var all []Case
	for what, name := range map[string]string{
		"a newline": "a\nb", "invalid UTF-8": "\xff\xfe\x80", "255 bytes": strings.Repeat("x", 255), "a leading dash": "-rf", "spaces": " a  b ", "quotes": `"'\`, "letters of other scripts": "日本語ñ",
		"a colon": "a:b", "a backslash": `a\b`, "control characters": "\x01\x7f", "three dots": "...", "combined characters": "e\u0301",
	} {
		all = append(all, Case{"names", what, false, func(dir string) error {
			p := dir + "/" + name
			return steps(func() error { return write(p, "text") }, func() error { return contains(p, "text") }, func() error {
				entries, err := os.ReadDir(dir)
				if err == nil && (len(entries) != 1 || entries[0].Name() != name) {
					err = fmt.Errorf("the folder has %q", entries)
				}
				return err
			}, func() error { return os.Rename(p, p[:len(p)-1]+"Z") }, func() error { return os.Remove(p[:len(p)-1] + "Z") })
		}})
	}
	return append(all, Case{"names", "that differ in case are different", false, func(dir string) error {
		return steps(func() error { return write(dir+"/File", "one") }, func() error { return write(dir+"/file", "two") }, func() error { return contains(dir+"/File", "one") }, func() error { return want(unix.Lstat(dir+"/FILE", new(unix.Stat_t)), unix.ENOENT) })
	}})
}

// run starts a program by a shell: until a child of this process has come to run it, garbage collection waits for it, and so would a share that is served here.
func run(program string) error { return exec.Command("sh", "-c", `exec "$0"`, program).Run() }

// toolCases: what developers' tools rely on.
func toolCases() []Case {
	f := func(dir string) string { return dir + "/f" }
	return []Case{
		{"tools", "a script is run when it may be, and only then", false, func(dir string) error {
			return steps(func() error { return write(f(dir), "#!/bin/sh\nexit 0\n") }, func() error {
				if run(f(dir)) == nil {
					return errors.New("it ran without the right to")
				}
				return nil
			}, func() error { return os.Chmod(f(dir), 0o755) }, func() error { return run(f(dir)) })
		}},
		{"tools", "extended attributes of users", false, func(dir string) error {
			buf := make([]byte, 100)
			return steps(func() error { return touch(f(dir)) }, func() error { return unix.Setxattr(f(dir), "user.test", []byte("value"), 0) }, func() error {
				n, err := unix.Getxattr(f(dir), "user.test", buf)
				if err == nil && string(buf[:n]) != "value" {
					err = fmt.Errorf("it is %q", buf[:n])
				}
				return err
			}, func() error { return want(unix.Setxattr(f(dir), "user.test", nil, unix.XATTR_CREATE), unix.EEXIST) }, func() error {
				n, err := unix.Listxattr(f(dir), buf)
				if err == nil && !strings.Contains(string(buf[:n]), "user.test\x00") {
					err = fmt.Errorf("there are %q", buf[:n])
				}
				return err
			}, func() error { return unix.Removexattr(f(dir), "user.test") }, func() error {
				_, err := unix.Getxattr(f(dir), "user.test", buf)
				return want(err, unix.ENODATA)
			})
		}},
		{"tools", "O_TMPFILE, and a name for it later", false, func(dir string) error {
			fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return steps(func() error { _, err := unix.Write(fd, []byte("text")); return err }, func() error {
				return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, f(dir), unix.AT_SYMLINK_FOLLOW)
			}, func() error { return contains(f(dir), "text") })
		}},
		{"tools", "a folder of 10,000 files is read once and whole, while files go", false, func(dir string) error {
			for i := range 10000 {
				if err := touch(fmt.Sprintf("%s/f%d", dir, i)); err != nil {
					return err
				}
			}
			return readWhileRemoving(dir)
		}},
		{"tools", "sizes are right while a file grows", false, func(dir string) error {
			return withFile(f(dir), func(h *os.File) error {
				for i := range 50 {
					if _, err := h.WriteString("0123456789"); err != nil {
						return err
					}
					if st, err := os.Stat(f(dir)); err != nil || st.Size() != int64(10*(i+1)) {
						return fmt.Errorf("after %d: %v, %w", i+1, st, err)
					}
				}
				return nil
			})
		}},
		{"tools", "what one writes another reads at once", false, func(dir string) error {
			return withFile(f(dir), func(h *os.File) error {
				due := ""
				for i := range 50 {
					line := fmt.Sprintf("line %d\n", i)
					due += line
					if _, err := h.WriteString(line); err != nil {
						return err
					}
					if err := contains(f(dir), due); err != nil {
						return err
					}
				}
				return nil
			})
		}},
		{"tools", "writes here and there in a file", false, func(dir string) error {
			due := make([]byte, 300_000)
			if err := withFile(f(dir), func(h *os.File) error {
				for i := range 500 {
					at := (i * 7919) % (len(due) - 1000)
					part := bytes.Repeat([]byte{byte(i)}, 1+i%1000)
					copy(due[at:], part)
					if _, err := h.WriteAt(part, int64(at)); err != nil {
						return err
					}
				}
				return h.Truncate(int64(len(due)))
			}); err != nil {
				return err
			}
			got, err := os.ReadFile(f(dir))
			if err == nil && !bytes.Equal(got, due) {
				err = errors.New("it has something else")
			}
			return err
		}},
	}
}

// readWhileRemoving reads a folder in small steps and removes what it finds.
func readWhileRemoving(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	seen := map[string]bool{}
	for {
		names, err := d.Readdirnames(100)
		for _, n := range names {
			if seen[n] {
				return fmt.Errorf("%q came twice", n)
			}
			seen[n] = true
			if err := os.Remove(dir + "/" + n); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
	}
	if len(seen) != 10000 {
		return fmt.Errorf("%d names came", len(seen))
	}
	return os.Remove(dir)
}
