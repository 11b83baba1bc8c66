// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// watchTree watches a folder of the test's as a whole.
func watchTree(t *testing.T, folders ...string) (*Watcher, string) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range folders {
		if err := os.MkdirAll(filepath.Join(dir, f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w, err := Open(dir, Options{Tree: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.AddTree(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, dir
}

// awaitEvent reads events until there is one that is wanted.
func awaitEvent(t *testing.T, w *Watcher, want wire.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seen []wire.Event
	for {
		events, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("%v was not told of: %v; told were %v", want, err, seen)
		}
		if slices.Contains(events, want) {
			return
		}
		seen = append(seen, events...)
	}
}

func TestTree(t *testing.T) {
	w, dir := watchTree(t, "a/b/c", "d")
	if n := w.Watched(); n != 5 {
		t.Errorf("%d folders are watched", n)
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/b/c/f")
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "a/b/c/f"})

	// folders that come are followed, with what is in them by then
	if err := os.MkdirAll(filepath.Join(dir, "d/new/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("d/new/deep/g")
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "d/new/deep/g"})
	other := t.TempDir()
	if err := os.MkdirAll(filepath.Join(other, "in/it"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, "in"), filepath.Join(dir, "in")); err != nil {
		t.Skip("temporary folders are on several file systems: ", err)
	}
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "in/it", Dir: true})
	write("in/it/h")
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "in/it/h"})

	// and where they go
	if err := os.Rename(filepath.Join(dir, "in"), filepath.Join(dir, "a/out")); err != nil {
		t.Fatal(err)
	}
	write("a/out/it/i")
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "a/out/it/i"})
}

// Folders that are moved as soon as they are made are watched where they are then.
func TestTreeMovedAtOnce(t *testing.T) {
	w, dir := watchTree(t)
	const rounds = 50
	for i := range rounds {
		at, to := filepath.Join(dir, "new"), filepath.Join(dir, fmt.Sprint("at", i))
		if err := errors.Join(os.MkdirAll(at+"/in", 0o755), os.Rename(at, to)); err != nil {
			t.Fatal(err)
		}
	}
	awaitEvent(t, w, wire.Event{Kind: wire.Moved, Path: "new", To: fmt.Sprint("at", rounds-1), Dir: true})
	for i := range rounds {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("at", i), "in/f"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: fmt.Sprint("at", i, "/in/f")})
	}
}

// A closing is told of a file that was opened before anything was told of it: it may have been written to as memory.
func TestTreeClosed(t *testing.T) {
	w, dir := watchTree(t, "a")
	name := filepath.Join(dir, "a/f")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, w, wire.Event{Kind: wire.Closed, Path: "a/f"})
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, w, wire.Event{Kind: wire.Closed, Path: "a/f"})
}

// What is lost is one Rescan; what the system lost may have been folders, which are watched once AddTree has been called again.
func TestTreeLost(t *testing.T) {
	w, dir := watchTree(t, "a")
	for _, unwatched := range []bool{false, true} {
		w.mu.Lock()
		w.queue.add(wire.Event{Kind: wire.Created, Path: "waits"}, time.Now())
		if unwatched {
			w.take(raw{lost: true})
		} else {
			w.loseTree(false)
		}
		whole := w.whole
		w.mu.Unlock()
		if whole == unwatched {
			t.Errorf("lost by the system: %t; whole: %t", unwatched, whole)
		}
		events, err := w.Next(t.Context())
		if want := []wire.Event{{Kind: wire.Rescan, Dir: true}}; err != nil || !slices.Equal(events, want) {
			t.Errorf("got %v, %v", events, err)
		}
	}
	if err := w.AddTree(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, w, wire.Event{Kind: wire.Created, Path: "a/f"})
}
