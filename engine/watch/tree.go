// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/seed71221737/dev/compose"
)

// Options say what a [Tree] watches.
type Options struct {
	// Roots are absolute paths of folders and files.
	Roots []string
	// Prune reports that nothing below a folder is of interest; nil: all is. It must always give the same answer.
	Prune func(dir string) bool
	// Logger takes what may help to find a fault; nil discards.
	Logger *slog.Logger
}

// Tree is a set of folders and files that is being watched. Next may be called by one goroutine at a time, Known by any. Close ends it.
type Tree struct {
	roots []string
	prune func(string) bool
	log   *slog.Logger
	fs    *fsnotify.Watcher
	done  sync.WaitGroup

	looking sync.Mutex // held while known is used
	// known is what was there when it was looked at last, by path.
	known map[string]stamp

	mu     sync.Mutex
	dirty  map[string]bool // paths that events named since; true: something was made there
	rescan bool            // events were lost: everything is dirty
	first  time.Time       // of the first of them
	last   time.Time       // and of the last
	err    error           // why there will be no more
	wake   chan struct{}
}

// stamp is what tells that a path has changed.
type stamp struct {
	mode fs.FileMode
	size int64
	time time.Time
}

func stampOf(i fs.FileInfo) stamp {
	s := stamp{mode: i.Mode()}
	if !i.IsDir() { // a folder's time says what its content says better
		s.size, s.time = i.Size(), i.ModTime()
	}
	return s
}

// New begins to watch. What is there already is no change.
func New(o Options) (*Tree, error) {
	w, err := fsnotify.NewBufferedWatcher(eventBuffer)
	if err != nil {
		return nil, limited(fmt.Errorf("watch files: %w", err), 0)
	}
	t := &Tree{
		roots: compact(o.Roots), prune: o.Prune, log: o.Logger, fs: w,
		known: map[string]stamp{}, dirty: map[string]bool{}, wake: make(chan struct{}, 1),
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.prune == nil {
		t.prune = func(string) bool { return false }
	}
	t.done.Go(t.listen)
	for _, root := range t.roots {
		if err := t.anchor(root); err != nil {
			return nil, errors.Join(err, t.Close())
		}
		if _, err := t.look(root, nil); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

// eventBuffer is how many events the library holds for a moment in which we do not read.
const eventBuffer = 4096

// compact sorts paths and leaves out those below others.
func compact(paths []string) []string {
	var kept []string
	for _, p := range slices.Sorted(slices.Values(paths)) {
		p = filepath.Clean(p)
		if !slices.ContainsFunc(kept, func(k string) bool { return below(k, p) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// below reports whether a path is dir or lies in it.
func below(dir, name string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == filepath.Separator || strings.HasSuffix(dir, string(filepath.Separator)))
}

// Close ends the watching and waits for its goroutine.
func (t *Tree) Close() error {
	err := t.fs.Close()
	t.done.Wait()
	return err
}

// Known lists everything that is there below a path, it included, folders before what is in them, as if it were new.
func (t *Tree) Known(root string) []compose.WatchChange {
	t.looking.Lock()
	defer t.looking.Unlock()
	var all []compose.WatchChange
	for name, s := range t.known {
		if below(root, name) {
			all = append(all, compose.WatchChange{Path: name, Dir: s.mode.IsDir()})
		}
	}
	slices.SortFunc(all, func(a, b compose.WatchChange) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// Next waits until something has changed and been quiet for a moment, and returns the changes, sorted by path. It returns ctx's error once that is
// done, and otherwise fails only if nothing can be watched any more.
func (t *Tree) Next(ctx context.Context) ([]compose.WatchChange, error) {
	for {
		if err := t.quiet(ctx); err != nil {
			return nil, err
		}
		changes, err := t.collect()
		if err != nil || len(changes) > 0 {
			return changes, err
		}
	}
}

// quiet waits until there is something to look at and it is time to.
func (t *Tree) quiet(ctx context.Context) error {
	for {
		n, wait, err := t.outlook()
		switch {
		case n > 0 && wait <= 0:
			return nil
		case n == 0 && err != nil:
			return err
		}
		timer := time.NewTimer(wait)
		if n == 0 {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		case <-t.wake:
			timer.Stop()
		}
	}
}

// outlook says how many paths are dirty, how long they are to be left alone yet, and why there will be no more.
func (t *Tree) outlook() (n int, wait time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n = len(t.dirty)
	if t.rescan {
		n = max(n, manyPaths)
	}
	now := time.Now()
	return n, pause(n, now.Sub(t.first), now.Sub(t.last)), t.err
}

// manyPaths are more than a person changes by hand: a checkout, a build, a formatter.
const manyPaths = 64

// pause says how long to wait yet before n paths are looked at, the first of which was named that long ago and the last that. A saved file goes out at
// once; a storm is given time to end, so that it makes few transfers, but not forever.
func pause(n int, sinceFirst, sinceLast time.Duration) time.Duration {
	settle, longest := 15*time.Millisecond, 250*time.Millisecond
	if n >= manyPaths {
		settle, longest = 300*time.Millisecond, 10*time.Second
	}
	return min(settle-sinceLast, longest-sinceFirst)
}

// listen notes what events name, until the watcher is closed.
func (t *Tree) listen() {
	for {
		select {
		case e, ok := <-t.fs.Events:
			if !ok {
				t.note("", false, errors.New("the watching has ended"))
				return
			}
			if t.relevant(e.Name) {
				t.note(e.Name, e.Has(fsnotify.Create), nil)
			}
		case err, ok := <-t.fs.Errors:
			if !ok {
				t.note("", false, errors.New("the watching has ended"))
				return
			}
			t.log.Debug("watch files", "error", err)
			t.note("", false, nil) // whatever was lost is found by looking
		}
	}
}

// relevant reports whether a path is in a root, or on the way to one.
func (t *Tree) relevant(name string) bool {
	return slices.ContainsFunc(t.roots, func(r string) bool { return below(r, name) || below(name, r) })
}

// note marks a path as dirty, all of them if it is empty, and wakes who waits.
func (t *Tree) note(name string, made bool, err error) {
	t.mu.Lock()
	now := time.Now()
	if len(t.dirty) == 0 && !t.rescan {
		t.first = now
	}
	t.last = now
	switch {
	case err != nil:
		t.err = err
	case name == "":
		t.rescan = true
	default:
		t.dirty[name] = t.dirty[name] || made
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// collect looks at what is dirty and returns what is not as it was.
func (t *Tree) collect() ([]compose.WatchChange, error) {
	t.mu.Lock()
	dirty, rescan := t.dirty, t.rescan
	t.dirty, t.rescan = map[string]bool{}, false
	t.mu.Unlock()
	t.looking.Lock()
	defer t.looking.Unlock()
	if rescan {
		for name := range t.known {
			dirty[name] = dirty[name] || false
		}
		for _, root := range t.roots {
			dirty[root] = true
		}
	}
	s := &search{Tree: t, gone: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(dirty)) {
		if err := s.examine(name, dirty[name]); err != nil {
			return nil, err
		}
	}
	s.forgetBelow()
	slices.SortFunc(s.changes, func(a, b compose.WatchChange) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), order(a.Removed, b.Removed))
	})
	return slices.Compact(s.changes), nil
}

// order puts what is gone before what took its place.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// search is one look at what is dirty.
type search struct {
	*Tree
	changes []compose.WatchChange
	gone    map[string]bool // folders that are not there any more
}

// examine looks at one path. With deep it looks into a folder that is known, too.
func (s *search) examine(name string, deep bool) error {
	for _, root := range s.roots {
		switch {
		case below(root, name):
			return s.compare(name, deep)
		case below(name, root): // on the way to the root: that may have come or gone
			if err := s.anchor(root); err != nil {
				return err
			}
			if err := s.compare(root, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare looks at a path below a root.
func (s *search) compare(name string, deep bool) error {
	old, known := s.known[name]
	info, err := os.Lstat(name)
	if err != nil {
		if known {
			s.forget(name, old)
		}
		return nil
	}
	now := stampOf(info)
	switch {
	case known && old.mode.IsDir() != now.mode.IsDir():
		s.forget(name, old)
	case known && now.mode.IsDir() && deep:
		return s.revisit(name)
	case known && old == now:
		return nil
	case known && now.mode.IsDir():
		s.known[name] = now
		s.changes = append(s.changes, compose.WatchChange{Path: name, Dir: true})
		return nil
	}
	found, err := s.look(name, s.known)
	s.changes = append(s.changes, found...)
	return err
}

// revisit looks into a folder that may have been replaced by another of the name.
func (s *search) revisit(dir string) error {
	for name, old := range s.known {
		if !below(dir, name) {
			continue
		}
		if info, err := os.Lstat(name); err != nil || info.IsDir() != old.mode.IsDir() {
			s.forget(name, old)
		}
	}
	found, err := s.look(dir, s.known)
	s.changes = append(s.changes, found...)
	return err
}

// forget drops a path that is gone; what was in it is dropped at the end, in one go.
func (s *search) forget(name string, old stamp) {
	delete(s.known, name)
	if old.mode.IsDir() {
		s.gone[name] = true
		_ = s.fs.Remove(name) // the system has, mostly
	}
	s.changes = append(s.changes, compose.WatchChange{Path: name, Removed: true, Dir: old.mode.IsDir()})
}

// forgetBelow drops what was in folders that are gone, unless it was seen anew.
func (s *search) forgetBelow() {
	if len(s.gone) == 0 {
		return
	}
	for name, old := range s.known {
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			if s.gone[dir] {
				if _, err := os.Lstat(name); err != nil {
					delete(s.known, name)
					if old.mode.IsDir() {
						_ = s.fs.Remove(name)
					}
				}
				break
			}
			if filepath.Dir(dir) == dir {
				break
			}
		}
	}
}

// look goes through a path and all below it, watches its folders, and returns what is not as before. A folder is watched before it is read, so that
// nothing comes in between.
func (t *Tree) look(top string, before map[string]stamp) ([]compose.WatchChange, error) {
	var changes []compose.WatchChange
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if errors.Is(err, fs.ErrPermission) {
			t.log.Debug("watch files", "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch %q: %w", name, err)
		}
		if d.IsDir() {
			if t.prune(name) {
				return filepath.SkipDir
			}
			if err := t.add(name); err != nil {
				return err
			}
		}
		info, _ := d.Info()
		if info == nil {
			return nil // gone meanwhile, of which an event tells
		}
		now := stampOf(info)
		if old, known := before[name]; !known || old != now {
			changes = append(changes, compose.WatchChange{Path: name, Dir: d.IsDir()})
		}
		t.known[name] = now
		return nil
	})
	return changes, err
}

// anchor watches the nearest folder above a root that exists, so that the root is noticed when it comes, goes, or is replaced.
func (t *Tree) anchor(root string) error {
	for last := ""; ; {
		dir := filepath.Dir(root)
		for filepath.Dir(dir) != dir {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				break
			}
			dir = filepath.Dir(dir)
		}
		if dir == last {
			return nil
		}
		if err := t.add(dir); err != nil { // a nearer one may have come meanwhile: look again
			return err
		}
		last = dir
	}
}

// add watches a folder. One that is gone by now is no error.
func (t *Tree) add(dir string) error {
	err := t.fs.Add(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return limited(fmt.Errorf("watch %q: %w", dir, err), len(t.fs.WatchList()))
}
