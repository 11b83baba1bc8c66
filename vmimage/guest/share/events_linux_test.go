// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/hostagent/fileevents"
	host "github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/share"
)

// followed is a mounted share whose host's events are replayed.
func followed(t *testing.T, change func(*host.Options, *share.Options)) *pair {
	t.Helper()
	return mounted(t, func(ho *host.Options, so *share.Options) {
		w, err := fileevents.Open(ho.Folder, fileevents.Options{Problem: func(err error) { t.Error(err) }, Logger: ho.Logger})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
		ho.Watcher, ho.Journal, ho.Events = w, w.Ledger(), w
		if change != nil {
			change(ho, so)
		}
	})
}

// inotify are watches of this process.
type inotify struct {
	t     *testing.T
	file  *os.File
	names map[int32]string
}

// watch begins to watch paths below a folder.
func watch(t *testing.T, dir string, paths ...string) *inotify {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	w := &inotify{t: t, file: os.NewFile(uintptr(fd), "inotify"), names: map[int32]string{}}
	t.Cleanup(func() { _ = w.file.Close() })
	for _, p := range paths {
		// Opening and reading is no change; a file's opening is told with its modification or with its closing, as they come.
		wd, err := unix.InotifyAddWatch(fd, filepath.Join(dir, p), unix.IN_ALL_EVENTS&^(unix.IN_OPEN|unix.IN_ACCESS|unix.IN_CLOSE_NOWRITE))
		if err != nil {
			t.Fatal(err)
		}
		w.names[int32(wd)] = p
	}
	return w
}

var masks = []struct {
	bit  uint32
	name string
}{
	{unix.IN_MODIFY, "MODIFY"}, {unix.IN_ATTRIB, "ATTRIB"}, {unix.IN_CLOSE_WRITE, "CLOSE_WRITE"}, {unix.IN_MOVED_FROM, "MOVED_FROM"},
	{unix.IN_MOVED_TO, "MOVED_TO"}, {unix.IN_CREATE, "CREATE"}, {unix.IN_DELETE, "DELETE"}, {unix.IN_DELETE_SELF, "DELETE_SELF"},
	{unix.IN_MOVE_SELF, "MOVE_SELF"}, {unix.IN_ISDIR, "ISDIR"}, {unix.IN_IGNORED, "IGNORED"}, {unix.IN_Q_OVERFLOW, "OVERFLOW"},
}

// until reads events up to the creation of a name in the first watched folder.
func (w *inotify) until(mark string) []string {
	w.t.Helper()
	var all []string
	buf := make([]byte, 64<<10)
	if err := w.file.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			w.t.Fatalf("waiting for %q: %v; until then:\n%s", mark, err, strings.Join(all, "\n"))
		}
		for b := buf[:n]; len(b) > 0; {
			wd, mask, size := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
			if name == mark {
				return all
			}
			if strings.HasPrefix(name, "mark") {
				continue
			}
			var kinds []string
			for _, m := range masks {
				if mask&m.bit != 0 {
					kinds = append(kinds, m.name)
				}
			}
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s: %s %s", w.names[wd], strings.Join(kinds, "|"), name)))
		}
	}
}

// mark makes a name that ends what is waited for.
func mark(t *testing.T, dir string) string {
	t.Helper()
	name := fmt.Sprintf("mark%d", time.Now().UnixNano())
	if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFREG|0o644, 0); err != nil {
		t.Fatal(err)
	}
	return name
}

// settled waits until what was done to the host's folder so far has been told.
func settled(t *testing.T, p *pair) {
	t.Helper()
	w := watch(t, p.target, "")
	w.until(mark(t, p.folder))
}

// furnish makes what the cases need.
func furnish(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"sub/deep", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "watched", "sub/file", "sub/deep/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
}

// operations are what people and their tools do to files.
var operations = []struct {
	name string
	do   func(at func(string) string) error
}{
	{"write a new file", func(at func(string) string) error { return os.WriteFile(at("new"), []byte("x"), 0o644) }},
	{"write a file", func(at func(string) string) error { return os.WriteFile(at("file"), []byte("new text"), 0o644) }},
	{"write a watched file", func(at func(string) string) error { return os.WriteFile(at("watched"), []byte("new text"), 0o644) }},
	{"append", func(at func(string) string) error {
		f, err := os.OpenFile(at("sub/file"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("more")
		return errors.Join(err, f.Close())
	}},
	{"truncate", func(at func(string) string) error { return os.Truncate(at("file"), 1) }},
	{"chmod", func(at func(string) string) error { return os.Chmod(at("watched"), 0o600) }},
	{"chmod a folder", func(at func(string) string) error { return os.Chmod(at("sub"), 0o700) }},
	{"utimes", func(at func(string) string) error {
		return os.Chtimes(at("file"), time.Unix(1e9, 0), time.Unix(1e9, 0))
	}},
	{"symlink", func(at func(string) string) error { return os.Symlink("file", at("link2")) }},
	{"hard link", func(at func(string) string) error { return os.Link(at("file"), at("hard")) }},
	{"fifo", func(at func(string) string) error { return unix.Mkfifo(at("fifo"), 0o644) }},
	{"mkdir", func(at func(string) string) error { return os.Mkdir(at("sub/newdir"), 0o755) }},
	{"unlink", func(at func(string) string) error { return os.Remove(at("file")) }},
	{"unlink a watched file", func(at func(string) string) error { return os.Remove(at("watched")) }},
	{"unlink a symlink", func(at func(string) string) error { return os.Remove(at("link")) }},
	{"rmdir", func(at func(string) string) error { return os.Remove(at("other")) }},
	{"remove a tree", func(at func(string) string) error {
		return errors.Join(os.Remove(at("sub/deep/file")), os.Remove(at("sub/deep")), os.Remove(at("sub/file")), os.Remove(at("sub")))
	}},
	{"rename", func(at func(string) string) error { return os.Rename(at("file"), at("renamed")) }},
	{"rename to another folder", func(at func(string) string) error { return os.Rename(at("file"), at("sub/deep/renamed")) }},
	{"rename a folder", func(at func(string) string) error {
		return errors.Join(os.Rename(at("sub"), at("sub2")), os.WriteFile(at("sub2/deep/file"), []byte("after"), 0o644))
	}},
	{"save as editors do", func(at func(string) string) error {
		return errors.Join(os.WriteFile(at("watched.tmp"), []byte("new"), 0o644), os.Rename(at("watched.tmp"), at("watched")))
	}},
	{"save with a backup", func(at func(string) string) error {
		return errors.Join(os.Rename(at("watched"), at("watched~")), os.WriteFile(at("watched"), []byte("new"), 0o644), os.Remove(at("watched~")))
	}},
	{"temporary file", func(at func(string) string) error {
		return errors.Join(os.WriteFile(at("tmp"), []byte("x"), 0o644), os.Remove(at("tmp")))
	}},
	{"replace a file by a folder", func(at func(string) string) error {
		return errors.Join(os.Remove(at("file")), os.Mkdir(at("file"), 0o755))
	}},
}

// What inotify says in the guest of a change on the host is what it says on the host.
func TestEventsAreTrue(t *testing.T) {
	paths := []string{"", "sub", "sub/deep", "other", "watched"}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			p := followed(t, nil)
			furnish(t, p.folder)
			settled(t, p)
			local, seen := watch(t, p.folder, paths...), watch(t, p.target, paths...)
			if err := op.do(p.host); err != nil {
				t.Fatal(err)
			}
			m := mark(t, p.folder)
			want, got := local.until(m), seen.until(m)
			want, got = folded(want), folded(got)
			if !slices.Equal(got, want) {
				t.Errorf("in the guest:\n%s\non the host:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			same(t, p.folder, p.target)
		})
	}
}

// folded leaves out modifications that only repeat those before them: how many there are is a matter of timing everywhere.
func folded(lines []string) []string {
	var out []string
	for _, l := range lines {
		if strings.Contains(l, "MODIFY") && slices.Contains(out[max(0, len(out)-2):], l) {
			continue
		}
		out = append(out, l)
	}
	return out
}

// same compares names, kinds and contents of two folders.
func same(t *testing.T, a, b string) {
	t.Helper()
	if got, want := tree(t, b), tree(t, a); got != want {
		t.Errorf("the guest has\n%sthe host\n%s", got, want)
	}
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %v", rel, info.Mode())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %q", text)
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out.String()
}

// What the guest does itself is told once, as everywhere: nothing comes back from the host.
func TestEventsOfTheGuestOnce(t *testing.T) {
	paths := []string{"", "sub", "sub/deep", "other", "watched"}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			p := followed(t, nil)
			furnish(t, p.folder)
			settled(t, p)
			dir := t.TempDir()
			furnish(t, dir)
			local, seen := watch(t, dir, paths...), watch(t, p.target, paths...)
			err := op.do(func(name string) string { return filepath.Join(dir, name) })
			if err := errors.Join(err, op.do(p.guest)); err != nil {
				t.Fatal(err)
			}
			want := local.until(mark(t, dir))
			got := seen.until(mark(t, p.folder)) // on the host: all before it has been judged
			want, got = folded(want), folded(got)
			if !slices.Equal(got, want) {
				t.Errorf("on the share:\n%s\nlocally:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			same(t, p.folder, p.target)
		})
	}
}

// Who watches a file is told of its end, or that it moved, also when the guest has found another file in its place before the events came that say so.
func TestEventsOfReplacedFiles(t *testing.T) {
	const rounds = 30
	for name, c := range map[string]struct {
		replace func(file string) error
		ends    string
	}{
		"renamed over": {func(file string) error {
			return errors.Join(os.WriteFile(file+".new", nil, 0o644), os.Rename(file+".new", file))
		}, "DELETE_SELF"},
		"deleted and made": {func(file string) error {
			return errors.Join(os.WriteFile(file+".old", nil, 0o644), os.Remove(file), os.WriteFile(file, nil, 0o644), os.Remove(file+".old"))
		}, "DELETE_SELF"},
		"moved aside": {func(file string) error {
			return errors.Join(os.Rename(file, file+"~"), os.WriteFile(file, nil, 0o644))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := followed(t, nil)
			if err := os.WriteFile(p.host("f"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			folder, looking := watch(t, p.target, ""), watch(t, p.target, "")
			stopped := make(chan struct{})
			t.Cleanup(func() {
				_ = looking.file.SetReadDeadline(time.Now())
				<-stopped
			})
			go func() {
				defer close(stopped)
				for buf := make([]byte, 64<<10); ; { // as a program that looks at the folder whenever something happens in it
					if _, err := looking.file.Read(buf); err != nil {
						return
					}
					entries, _ := os.ReadDir(p.target)
					for _, e := range entries {
						_, _ = e.Info() // it may be gone
					}
				}
			}()
			for range rounds {
				w := watch(t, p.target, "f")
				if err := c.replace(p.host("f")); err != nil {
					t.Fatal(err)
				}
				w.heard(c.ends)
				_ = w.file.Close()              // a user may have a hundred or so
				folder.until(mark(t, p.folder)) // on the host: all before it has been told
			}
		})
	}
}

// heard waits until a watched file is told of; ends, if not empty, must come.
func (w *inotify) heard(ends string) {
	w.t.Helper()
	if err := w.file.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			w.t.Fatalf("waiting for %q: %v", ends, err)
		}
		for b := buf[:n]; len(b) > 0; {
			mask, size := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			b = b[unix.SizeofInotifyEvent+size:]
			if ends == "" || ends == "DELETE_SELF" && mask&unix.IN_DELETE_SELF != 0 {
				return
			}
		}
	}
}
