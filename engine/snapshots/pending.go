// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Pending is what must be put right if the process that wrote it ends before it is done.
type Pending struct {
	Schema int `json:"schema"`
	// Paused and Stopped are the IDs of containers that were brought to rest and are to run again.
	Paused  []string `json:"paused,omitempty"`
	Stopped []string `json:"stopped,omitempty"`
	// Restoring is the snapshot that is being brought back, Safety the one with what was there before; both empty if none is.
	Restoring string `json:"restoring,omitempty"`
	Safety    string `json:"safety,omitempty"`
}

// Work is the right to bring containers of one project to rest and to replace its volumes: one process has it at a time.
type Work struct {
	// Left is what a process that ended early has left to put right; nil if nothing.
	Left *Pending

	path string
	lock *flock.Flock
}

// ErrBusy tells that another process works on the project's volumes.
var ErrBusy = errors.New("another snapshot or restore of the project is under way")

func (s Store) pending(project string) string {
	return filepath.Join(s.Dir, "pending", project+".json")
}

// Unfinished reports whether there is anything pending for a project. It costs one look at the file system.
func (s Store) Unfinished(project string) bool {
	_, err := os.Stat(s.pending(project))
	return err == nil
}

// Begin takes the right to work on a project's volumes, or gives up after a while with [ErrBusy]. The caller ends it with Close.
func (s Store) Begin(ctx context.Context, project string, patience time.Duration) (*Work, error) {
	w := &Work{path: s.pending(project)}
	if err := os.MkdirAll(filepath.Dir(w.path), 0o700); err != nil {
		return nil, fmt.Errorf("make the snapshot store: %w", err)
	}
	w.lock = flock.New(w.path + ".lock")
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := w.lock.TryLockContext(waiting, 50*time.Millisecond); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("work on the volumes of project %q: %w", project, err)
	}
	data, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	left := &Pending{}
	if err == nil {
		err = json.Unmarshal(data, left)
	}
	if err == nil && left.Schema != schema {
		err = fmt.Errorf("schema %d is not supported (this dev reads %d)", left.Schema, schema)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read what is left of an earlier snapshot %q: %w", w.path, err), w.lock.Unlock())
	}
	w.Left = left
	return w, nil
}

// Note writes down what is to be put right, before it is done.
func (w *Work) Note(p Pending) error {
	p.Schema = schema
	data, err := json.Marshal(p)
	if err == nil {
		err = atomicfile.Write(w.path, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what to put right: %w", err)
	}
	return nil
}

// Done forgets what was noted: all is right.
func (w *Work) Done() error {
	if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was to be put right: %w", err)
	}
	return nil
}

// Close gives the right back. What is noted stays noted.
func (w *Work) Close() error { return w.lock.Unlock() }
