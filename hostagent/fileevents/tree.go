// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// maxTree bounds the folders of a tree that is watched as a whole: each costs the kernel 1 KiB, and this side a third of that.
	maxTree = 1 << 17
	// maxTreeWaiting bounds what waits of a tree: who is told that something was lost asks for everything anew, which soon costs less.
	maxTreeWaiting = 1 << 14
)

// AddTree watches the share's folder with all folders in it; those that are made later are watched by themselves ([Options.Tree]). It returns at once where that
// has been done and nothing was lost since, and fails where not all can be watched: changes in some folders are not told then, until it succeeds.
func (w *Watcher) AddTree(ctx context.Context) error {
	for {
		w.mu.Lock()
		whole, losses := w.whole, w.losses
		w.mu.Unlock()
		if whole {
			return nil
		}
		if err := w.grow(ctx, "", nil); err != nil {
			return fmt.Errorf("watch all folders of %q: %w", w.root, err)
		}
		w.mu.Lock()
		w.whole = w.losses == losses
		w.mu.Unlock()
	}
}

// grow watches a folder and all below it, and tells found, unless that is nil, what is in them. What goes meanwhile is of no interest.
func (w *Watcher) grow(ctx context.Context, folder string, found func(path string, dir bool)) error {
	root, err := os.OpenRoot(w.root) // a folder may be replaced by a link out of the share at any time
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // read only
	for todo := []string{folder}; len(todo) > 0; {
		folder, todo = todo[len(todo)-1], todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := w.growOne(root, folder)
		if err != nil && !passable(err) {
			return err
		}
		for _, entry := range entries {
			path := join(folder, entry.Name())
			if entry.IsDir() {
				todo = append(todo, path)
			}
			if found != nil {
				found(path, entry.IsDir())
			}
		}
	}
	return nil
}

// growOne watches one folder and then lists it, so that nothing that is made in it is missed.
func (w *Watcher) growOne(root *os.Root, folder string) ([]fs.DirEntry, error) {
	if w.Watched() >= maxTree {
		return nil, fmt.Errorf("there are more than %d", maxTree)
	}
	if err := w.watch(folder); err != nil {
		return nil, err
	}
	f, err := root.Open(cmp.Or(folder, "."))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	if remote(f) {
		return nil, &remoteError{w.abs(folder)}
	}
	return f.ReadDir(-1)
}

// remoteError tells of a folder that others may change without this system noticing.
type remoteError struct{ folder string }

func (e *remoteError) Error() string {
	return fmt.Sprintf("%q is on another computer, or in another program", e.folder)
}

// passable reports whether a folder that cannot be watched is none that matters: it is gone, no folder any more, or closed to this user, whom the share is served as.
func passable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// follow watches the folders that came to a tree, and adds what was in them already.
func (w *Watcher) follow(events []raw) []raw {
	if !w.o.Tree {
		return events
	}
	all := events
	for _, e := range events {
		came := e.Path
		switch {
		case !e.Dir || e.lost:
			continue
		case e.Kind == wire.Moved: // it may have moved before it was watched, or what is in it
			came = e.To
		case e.Kind != wire.Created:
			continue
		}
		err := w.grow(context.Background(), came, func(path string, dir bool) {
			all = append(all, raw{Event: wire.Event{Kind: wire.Created, Path: path, Dir: dir}, at: e.at})
		})
		if err != nil {
			w.o.Logger.Debug("watch folder", "path", e.Path, "error", err)
			return []raw{{lost: true, at: e.at}}
		}
	}
	return all
}

// loseTree replaces all that waits by the word that it is not known what has changed. unwatched: folders may be missing from those that are watched. The lock is held.
func (w *Watcher) loseTree(unwatched bool) {
	w.queue, w.held = queue{}, false
	w.queue.add(wire.Event{Kind: wire.Rescan, Dir: true}, time.Time{})
	if unwatched {
		w.whole = false
		w.losses++
	}
}
