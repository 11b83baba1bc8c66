// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	slashpath "path"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Options of a [Watcher].
type Options struct {
	// Problem is called at most once, when folders can no longer be watched; Add is false for them from then on. It must not block. nil: nobody is told.
	Problem func(error)
	// Tree: the share is watched as a whole ([Watcher.AddTree]), and told of as it is: closings of files that nothing else was told of, too. Lost events are one
	// Rescan of the share's folder, and are not made up for. A folder on another computer is refused.
	Tree bool
	// Logger takes what may help to find a fault; nil discards.
	Logger *slog.Logger
}

// Watcher watches folders of a share. Its methods are safe for concurrent use, but Next is for one goroutine at a time. Close ends it.
type Watcher struct {
	root   string
	source source
	ledger *Ledger
	remote bool
	most   int // folders that may be watched; 0: as many as the system allows
	o      Options
	done   sync.WaitGroup
	tell   sync.Once

	backlog []wire.Event // Next's alone, as is open
	open    openFiles

	setMu sync.Mutex
	set   *dirs

	mu       sync.Mutex
	queue    queue
	since    time.Time // what happened before is not in the queue
	rescan   time.Time // from when on folders must be looked at again; zero: not
	scanning []string  // folders that are yet to be looked at
	sent     time.Time // when Next returned events last
	held     bool      // events were put back until an operation of ours has ended
	whole    bool      // all folders of a tree are watched
	losses   int       // of a tree's events, by the system
	err      error
	wake     chan struct{}
}

// Limits of a batch and of what waits.
const (
	batchSize  = 4096
	maxWaiting = 1 << 17
	// fewEvents are fewer than a full buffer of the system's holds.
	fewEvents = 900
	// batchPause is the least time between two batches: what comes in it goes out together.
	batchPause = 20 * time.Millisecond
	// patience is how long an event waits for an operation of the guest's on the same path.
	patience = 250 * time.Millisecond
	heldWait = 5 * time.Millisecond
	// clockSlack is how far a file system's clock may be behind the system's.
	clockSlack = 100 * time.Millisecond
)

// Open begins to watch a share's folder, and nothing below it yet.
func Open(root string, o Options) (*Watcher, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("watch folder: %w", err)
	}
	folder, err := os.Open(real)
	if err != nil {
		return nil, fmt.Errorf("watch folder: %w", err)
	}
	defer func() { _ = folder.Close() }() // read only
	w := &Watcher{root: real, o: o, set: newDirs(), since: time.Now(), wake: make(chan struct{}, 1), remote: remote(folder), most: mostFolders()}
	w.ledger = NewLedger(w.stat)
	if o.Tree && w.remote {
		return nil, fmt.Errorf("watch folder: %w", &remoteError{real})
	}
	if w.source, err = newSource(real, &w.setMu, w.set); err != nil {
		return nil, err
	}
	if err := w.watch(""); err != nil {
		return nil, errors.Join(err, w.source.close())
	}
	w.done.Go(w.listen)
	return w, nil
}

// Close ends the watching and waits for its goroutine. Next fails from then on.
func (w *Watcher) Close() error {
	err := w.source.close()
	w.done.Wait()
	return err
}

// Ledger is where the share's server notes what it changes for the guest.
func (w *Watcher) Ledger() *Ledger { return w.ledger }

// Add watches a folder below the share from now on, and is to be called before the guest is told of it. It reports whether all changes in it will be told;
// where not (the system's limit is reached, or the folder is on another computer), the guest must ask again before it believes what it knows.
func (w *Watcher) Add(path string) bool {
	err := w.watch(path)
	if limit := (*LimitError)(nil); errors.As(err, &limit) {
		w.tell.Do(func() {
			if w.o.Problem != nil {
				w.o.Problem(err)
			}
		})
	}
	if err != nil {
		w.o.Logger.Debug("watch folder", "path", path, "error", err)
	}
	return err == nil && !w.remote
}

// watch asks the system each time, even for a path that is in the set: it may be another folder by now.
func (w *Watcher) watch(path string) error {
	if path != "" && (path != slashpath.Clean(path) || path == "." || !filepath.IsLocal(filepath.FromSlash(path))) {
		return fmt.Errorf("watch folder %q: it is not below the share", path) // the guest's word is not trusted
	}
	if err := w.spare(path); err != nil {
		return err
	}
	handle, err := w.source.add(path)
	if err != nil {
		return err
	}
	w.setMu.Lock()
	w.set.add(path, handle)
	w.setMu.Unlock()
	return nil
}

// Forget watches a folder, and those below it, no more: the guest does not know them any longer.
func (w *Watcher) Forget(path string) {
	if path == "" {
		return
	}
	w.setMu.Lock()
	handles := w.set.drop(path)
	w.setMu.Unlock()
	w.source.remove(handles)
}

// Watched is the number of folders that are watched.
func (w *Watcher) Watched() int {
	w.setMu.Lock()
	defer w.setMu.Unlock()
	return w.set.count
}

// lose forgets what waits and looks at all watched folders instead, to tell what has changed since then as far as it can still be seen: what is new, what is not as
// it was, and, as Rescan, in which folders something may be missing. The lock is held.
func (w *Watcher) lose(since time.Time) {
	if w.rescan.IsZero() || since.Before(w.rescan) {
		w.rescan = since
	}
	w.queue, w.held = queue{}, false
	w.setMu.Lock()
	w.scanning = w.set.list()
	w.setMu.Unlock()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// listen takes the system's events until the source is closed.
func (w *Watcher) listen() {
	drained := time.Now() // until when everything had been read
	for {
		events, err := w.source.read(0)
		now := time.Now()
		events = w.follow(events)
		w.mu.Lock()
		if err != nil {
			w.err = fmt.Errorf("watch folder %q: %w", w.root, err)
			w.mu.Unlock()
			w.signal()
			return
		}
		if w.queue.count == 0 {
			w.since = drained
		}
		if len(events) < fewEvents {
			drained = now
		}
		for _, e := range events {
			w.take(e)
		}
		switch {
		case w.o.Tree && w.queue.count > maxTreeWaiting:
			w.loseTree(false)
		case w.queue.count > maxWaiting:
			w.o.Logger.Debug("file events: too many are waiting, looking instead", "waiting", w.queue.count)
			w.lose(w.since)
		}
		ready := w.queue.count > 0 || !w.rescan.IsZero()
		w.mu.Unlock()
		if ready {
			w.signal()
		}
	}
}

// take puts an event in the queue. The lock is held.
func (w *Watcher) take(e raw) {
	if e.lost && w.o.Tree {
		w.loseTree(true)
		return
	}
	if e.lost {
		w.o.Logger.Debug("file events: the system lost some, looking instead")
		w.lose(w.since)
		return
	}
	w.queue.add(e.Event, e.at)
}

// Next waits for changes by others and returns them in order: the first at once, more in batches. It returns ctx's error once that is done, and otherwise
// fails only when nothing is watched any more.
func (w *Watcher) Next(ctx context.Context) ([]wire.Event, error) {
	for {
		if len(w.backlog) > 0 {
			n := min(len(w.backlog), batchSize)
			events := w.backlog[:n:n]
			w.backlog = w.backlog[n:]
			return events, nil
		}
		wait, err := w.outlook()
		if err != nil {
			return nil, err
		}
		if wait > 0 {
			if err := w.await(ctx, wait); err != nil {
				return nil, err
			}
			continue
		}
		w.backlog = w.batch()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// forever is longer than anything waits.
const forever = 1 << 62

// outlook says how long there is nothing to do.
func (w *Watcher) outlook() (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.queue.count == 0 && w.rescan.IsZero() && w.err != nil:
		return 0, w.err
	case w.queue.count == 0 && w.rescan.IsZero():
		return forever, nil
	case w.held:
		w.held = false
		return heldWait, nil
	}
	return batchPause - time.Since(w.sent), nil
}

// await waits until a time has passed or, if that is far, something happens.
func (w *Watcher) await(ctx context.Context, wait time.Duration) error {
	var timer <-chan time.Time
	var wake <-chan struct{} = w.wake
	if wait < forever {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer, wake = t.C, nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer:
	case <-wake:
	}
	return nil
}

// batch takes events that wait, without those of the guest's own.
func (w *Watcher) batch() []wire.Event {
	w.mu.Lock()
	since, scanning := w.rescan, w.scanning
	changes := w.queue.take(batchSize)
	w.mu.Unlock()
	var events []wire.Event
	if !since.IsZero() {
		var rest []string
		events, rest = w.look(scanning, since.Add(-clockSlack))
		w.scanned(since, scanning, rest)
	}
	told, held := w.judge(changes)
	events = append(events, told...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.putBack(held)
	w.held = len(held) > 0
	if len(events) > 0 {
		w.sent = time.Now()
	}
	return events
}

// scanned notes how far the looking has come, unless it began anew meanwhile.
func (w *Watcher) scanned(since time.Time, before, rest []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.rescan.Equal(since) || len(w.scanning) != len(before) {
		return
	}
	w.scanning = rest
	if len(rest) == 0 {
		w.rescan, w.scanning = time.Time{}, nil
	}
}

// judge parts events into those to tell and those that must wait for an operation of the guest's, with all that may depend on them.
func (w *Watcher) judge(changes []*change) (told []wire.Event, held []*change) {
	waiting := map[string]bool{}
	for _, c := range changes {
		if dependsOn(c.Event, waiting) {
			held = append(held, c)
			continue
		}
		switch w.ledger.judge(c.Event, time.Since(c.first) < patience) {
		case foreign:
			if w.o.Tree || w.open.pass(c.Event) {
				told = append(told, c.Event)
			}
		case undecided:
			waiting[c.Path] = true
			if c.Kind == wire.Moved {
				waiting[c.To] = true
			}
			held = append(held, c)
		case own:
		}
	}
	return told, held
}

// dependsOn reports whether an event names one of the paths or something below them.
func dependsOn(e wire.Event, paths map[string]bool) bool {
	if len(paths) == 0 {
		return false
	}
	for _, path := range []string{e.Path, e.To} {
		for path != "" {
			if paths[path] {
				return true
			}
			path, _ = split(path)
		}
	}
	return false
}

// stat tells the state of a path below the share.
func (w *Watcher) stat(path string) (Stamp, bool) {
	info, err := os.Lstat(w.abs(path))
	if err != nil {
		return Stamp{}, false
	}
	return stampOf(info), true
}

func (w *Watcher) abs(path string) string { return filepath.Join(w.root, filepath.FromSlash(path)) }
