// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// watching is a watcher of a folder of the test's with all folders that are in it.
type watching struct {
	t *testing.T
	*Watcher
	dir string
}

func watchDir(t *testing.T, names ...string) *watching {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		full := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(full, 0o755)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte("old"), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			w.Add(strings.TrimPrefix(filepath.ToSlash(rel), "."))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return &watching{t, w, dir}
}

// until collects events up to one that a file makes which is created for it.
func (w *watching) until() []string {
	w.t.Helper()
	mark := fmt.Sprintf("mark%d", time.Now().UnixNano())
	w.must(os.Mkdir(filepath.Join(w.dir, mark), 0o755))
	var all []wire.Event
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			w.t.Fatalf("%v after %v", err, all)
		}
		for _, e := range events {
			if e.Path == mark {
				var lines []string
				for _, e := range all {
					lines = append(lines, e.String())
				}
				return lines
			}
			if !strings.HasPrefix(e.Path, "mark") {
				all = append(all, e)
			}
		}
	}
}

func (w *watching) must(errs ...error) {
	w.t.Helper()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watching) at(name string) string { return filepath.Join(w.dir, name) }

func (w *watching) expect(want ...string) {
	w.t.Helper()
	if got := w.until(); !slices.Equal(got, want) {
		w.t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What each operation on the host is told as.
func TestWatcherKinds(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *watching) error
		want []string
	}{
		{"write a new file", func(w *watching) error { return os.WriteFile(w.at("new"), []byte("x"), 0o644) },
			[]string{`created "new"`, `modified "new"`, `closed "new"`}},
		{"write a file", func(w *watching) error { return os.WriteFile(w.at("sub/file"), []byte("longer"), 0o644) },
			[]string{`modified "sub/file"`, `closed "sub/file"`}},
		{"change the mode", func(w *watching) error { return os.Chmod(w.at("file"), 0o600) }, []string{`attributes "file"`}},
		{"change a folder's mode", func(w *watching) error { return os.Chmod(w.at("sub"), 0o700) }, []string{`attributes "sub" (folder)`}},
		{"make a link", func(w *watching) error { return os.Symlink("file", w.at("link")) }, []string{`created "link"`}},
		{"make a hard link", func(w *watching) error { return os.Link(w.at("file"), w.at("hard")) }, []string{`created "hard"`}},
		{"delete", func(w *watching) error { return os.Remove(w.at("sub/file")) }, []string{`deleted "sub/file"`}},
		{"delete a tree", func(w *watching) error { return os.RemoveAll(w.at("sub")) },
			[]string{`deleted "sub/file"`, `deleted "sub/deep/file"`, `deleted "sub/deep" (folder)`, `deleted "sub" (folder)`}},
		{"move", func(w *watching) error { return os.Rename(w.at("file"), w.at("sub/moved")) }, []string{`moved "file" to "sub/moved"`}},
		{"move a folder, then write in it", func(w *watching) error {
			return errors.Join(os.Rename(w.at("sub"), w.at("other")), os.WriteFile(w.at("other/deep/file"), nil, 0o644))
		}, []string{`moved "sub" to "other" (folder)`, `modified "other/deep/file"`, `closed "other/deep/file"`}},
		{"move out", func(w *watching) error { return os.Rename(w.at("sub"), filepath.Join(w.t.TempDir(), "x")) }, []string{`deleted "sub" (folder)`}},
		{"save as editors do", func(w *watching) error {
			return errors.Join(os.WriteFile(w.at("file.tmp"), []byte("new"), 0o644), os.Rename(w.at("file.tmp"), w.at("file")))
		}, []string{`created "file.tmp"`, `modified "file.tmp"`, `closed "file.tmp"`, `moved "file.tmp" to "file"`}},
		{"make a folder that nobody was told of, with a file", func(w *watching) error {
			return errors.Join(os.Mkdir(w.at("unseen"), 0o755), os.WriteFile(w.at("unseen/file"), nil, 0o644))
		}, []string{`created "unseen" (folder)`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := watchDir(t, "file", "sub/file", "sub/deep/file")
			w.must(c.do(w))
			got := w.until()
			if c.name == "delete a tree" { // in the order of the system's directories
				slices.Sort(got[:2])
				slices.Sort(c.want[:2])
				if got[0] == c.want[0] && len(got) == 4 && got[3] == c.want[3] {
					return
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// A folder that was moved out is watched no more, one that takes its place is, and one that was deleted and made again, too.
func TestWatcherFollowsFolders(t *testing.T) {
	w := watchDir(t, "a/b/file", "c/")
	out := filepath.Join(t.TempDir(), "out")
	w.must(os.Rename(w.at("a"), out), os.Mkdir(w.at("a"), 0o755))
	w.until()
	if got := w.Watched(); got != 2 { // the share and c
		t.Errorf("watched folders: %d", got)
	}
	w.Add("a")
	w.must(os.WriteFile(filepath.Join(out, "b/file"), nil, 0o644), os.WriteFile(w.at("a/new"), nil, 0o644))
	w.expect(`created "a/new"`, `closed "a/new"`)
	w.must(os.RemoveAll(w.at("a")), os.Mkdir(w.at("a"), 0o755))
	w.Add("a") // before its deletion was read
	w.until()
	w.must(os.WriteFile(w.at("a/again"), nil, 0o644))
	w.expect(`created "a/again"`, `closed "a/again"`)
	w.Forget("a")
	w.must(os.WriteFile(w.at("a/once more"), nil, 0o644))
	w.expect()
}

// A checkout of many files arrives whole, in bounded batches, parents first.
func TestWatcherStorm(t *testing.T) {
	w := watchDir(t, "d/")
	const folders, files = 20, 500
	for i := range folders {
		dir := w.at(fmt.Sprintf("d/%d", i))
		w.must(os.Mkdir(dir, 0o755))
		w.Add(fmt.Sprintf("d/%d", i))
		for j := range files {
			w.must(os.WriteFile(filepath.Join(dir, fmt.Sprint(j)), []byte("x"), 0o644))
		}
	}
	created := map[string]bool{"d": true}
	for _, line := range w.until() {
		if name, ok := strings.CutPrefix(line, "created "); ok {
			name = strings.Trim(strings.TrimSuffix(name, " (folder)"), `"`)
			dir, _ := split(name)
			if !created[dir] {
				t.Fatalf("%q is told before its folder", name)
			}
			created[name] = true
		}
	}
	if len(created) != 1+folders+folders*files {
		t.Errorf("%d names were told, want %d", len(created), 1+folders+folders*files)
	}
}

// lost plays that the system has lost events.
func (w *Watcher) lost(since time.Time) {
	w.mu.Lock()
	w.lose(since)
	w.mu.Unlock()
	w.signal()
}

// Lost events are made up for by looking.
func TestWatcherRescan(t *testing.T) {
	w := watchDir(t, "same", "changed", "gone", "sub/chmod", "replaced")
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"same", "changed", "gone", "sub/chmod", "replaced", "sub"} {
		w.must(os.Chtimes(w.at(name), old, old))
	}
	w.until()
	// Changes of status of the files above must be older than what is looked for.
	time.Sleep(3 * clockSlack)
	since := time.Now()
	w.must(os.WriteFile(w.at("changed"), []byte("new"), 0o644), os.Remove(w.at("gone")), os.Chmod(w.at("sub/chmod"), 0o600),
		os.WriteFile(w.at("tmp"), []byte("new"), 0o644), os.Rename(w.at("tmp"), w.at("replaced")), os.Mkdir(w.at("made"), 0o755))
	w.until()
	w.lost(since)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	events, err := w.Next(ctx)
	w.must(err)
	var got []string
	for _, e := range events {
		if !strings.HasPrefix(e.Path, "mark") {
			got = append(got, e.String())
		}
	}
	want := []string{
		`rescan "" (folder)`, `modified "changed"`, `closed "changed"`, `created "made" (folder)`, `created "replaced"`, `modified "replaced"`,
		`closed "replaced"`, `attributes "sub/chmod"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// More events than the system holds are not lost either.
func TestWatcherOverflow(t *testing.T) {
	w := watchDir(t, "d/")
	time.Sleep(3 * clockSlack)
	w.mu.Lock() // the watcher cannot read on
	const files = 20000
	for i := range files {
		if err := os.WriteFile(w.at(fmt.Sprintf("d/%d", i)), nil, 0o644); err != nil {
			w.mu.Unlock()
			t.Fatal(err)
		}
	}
	w.mu.Unlock()
	seen := map[string]bool{}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for len(seen) < files {
		events, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("%d of %d files were told: %v", len(seen), files, err)
		}
		if len(events) > batchSize {
			t.Errorf("a batch of %d events", len(events))
		}
		for _, e := range events {
			if e.Kind == wire.Created && e.Path != "d" {
				seen[e.Path] = true
			}
		}
	}
}

// What the guest does itself is not told; what others do to the same files is.
func TestWatcherOwn(t *testing.T) {
	w := watchDir(t, "file", "sub/file")
	do := func(op wire.Op, path, to string, f func() error) {
		t.Helper()
		done := w.Ledger().Begin(op, path, to)
		err := f()
		done(err, wire.Attr{})
		w.must(err)
	}
	do(wire.OpMkdir, "dir", "", func() error { return os.Mkdir(w.at("dir"), 0o755) })
	do(wire.OpSetattr, "file", "", func() error { return os.Chmod(w.at("file"), 0o600) })
	do(wire.OpRename, "sub/file", "moved", func() error { return os.Rename(w.at("sub/file"), w.at("moved")) })
	do(wire.OpLink, "hard", "file", func() error { return os.Link(w.at("file"), w.at("hard")) })
	do(wire.OpUnlink, "file", "", func() error { return os.Remove(w.at("file")) })
	do(wire.OpRename, "hard", "moved", func() error {
		return unix.Renameat2(unix.AT_FDCWD, w.at("hard"), unix.AT_FDCWD, w.at("moved"), unix.RENAME_EXCHANGE)
	})
	var f *os.File
	do(wire.OpCreate, "new", "", func() (err error) { f, err = os.Create(w.at("new")); return err })
	for range 10 {
		do(wire.OpWrite, "new", "", func() error { _, err := f.WriteString("text"); return err })
	}
	w.must(f.Close()) // late, and part of no operation
	w.expect()
	w.must(os.WriteFile(w.at("new"), []byte("foreign"), 0o644), os.Mkdir(w.at("dir2"), 0o755), os.Remove(w.at("dir")), os.Mkdir(w.at("dir"), 0o755))
	w.expect(`modified "new"`, `closed "new"`, `created "dir2" (folder)`, `deleted "dir" (folder)`, `created "dir" (folder)`)
}

// An operation that has not ended holds back what is told of its path, and of what depends on it, but of nothing else.
func TestWatcherWaitsForOperations(t *testing.T) {
	w := watchDir(t, "file")
	done := w.Ledger().Begin(wire.OpMkdir, "dir", "")
	w.must(os.Mkdir(w.at("dir"), 0o755))
	w.Add("dir")
	w.must(os.WriteFile(w.at("dir/foreign"), nil, 0o644), os.Remove(w.at("file")))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	events, err := w.Next(ctx)
	w.must(err)
	if len(events) != 1 || events[0].Path != "file" {
		t.Errorf("events while an operation goes on: %v", events)
	}
	done(nil, wire.Attr{})
	w.expect(`created "dir/foreign"`, `closed "dir/foreign"`)
}

// At the system's limit there is one clear problem, and Add says that the folder is not watched.
func TestWatcherLimit(t *testing.T) {
	err := error(&LimitError{Setting: "fs.inotify.max_user_watches", Enough: 1 << 20, Err: errors.New("no space left on device")})
	var limit *LimitError
	if !errors.As(fmt.Errorf("watch: %w", err), &limit) || !strings.Contains(limit.Hint(), "sudo sysctl fs.inotify.max_user_watches=1048576") {
		t.Errorf("%v: %v", err, limit)
	}
	var told []error
	o := Options{Problem: func(err error) { told = append(told, err) }, Logger: slog.New(slog.DiscardHandler)}
	w := &Watcher{source: full{}, set: newDirs(), o: o}
	if w.Add("a") || w.Add("b") {
		t.Error("folders beyond the limit are said to be watched")
	}
	if len(told) != 1 {
		t.Errorf("told %d times: %v", len(told), told)
	}
}

// full is a system at its limit.
type full struct{ source }

func (full) add(string) (int32, error) {
	return 0, &LimitError{Setting: "fs.inotify.max_user_watches", Enough: 1 << 20, Err: errors.New("no space left on device")}
}

// What the guest asks for is not watched outside the share, neither by dots nor by links, nor looked at when events were lost.
func TestWatcherStaysInside(t *testing.T) {
	w := watchDir(t, "d/e/")
	outside := t.TempDir()
	rel, err := filepath.Rel(w.dir, outside)
	w.must(err, os.Mkdir(filepath.Join(outside, "sub"), 0o755), os.Symlink(outside, w.at("link")))
	for _, path := range []string{"..", rel, "d/../" + rel, outside, ".", "d//e", "d/..", "link", "link/sub"} {
		if w.Add(path) {
			t.Errorf("%q is watched", path)
		}
	}
	w.until() // the link itself
	w.must(os.WriteFile(filepath.Join(outside, "secret"), nil, 0o644), os.WriteFile(filepath.Join(outside, "sub", "secret"), nil, 0o644))
	w.expect()

	w.must(os.Rename(w.at("d"), w.at("was")), os.Mkdir(filepath.Join(outside, "e"), 0o755), os.Symlink(outside, w.at("d")))
	w.until()
	w.setMu.Lock()
	w.set.add("d/e", 0) // as if the system had lost the move
	w.setMu.Unlock()
	w.must(os.WriteFile(filepath.Join(outside, "e", "secret"), nil, 0o644))
	w.lost(time.Now().Add(-time.Minute))
	for _, line := range w.until() {
		if strings.Contains(line, "secret") {
			t.Errorf("the guest is told %s", line)
		}
	}
}
