// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package snapshots stores volume snapshots: what the volumes of a project had in them at one moment, to be brought back later.
//
// A snapshot is a manifest, one small file that names a blob for each volume. A blob is an archive of a volume, compressed, named after
// the digest of its uncompressed content; volumes that did not change share it. Blobs are checked against their name whenever they are read.
// The manifest is written last, so that a snapshot is whole or not there; what an interrupted save leaves behind is swept by the next change.
//
// Where the file system can, a volume is kept as a clone of its folder in place of an archive (see [Store.Clone]).
//
// Below [Store.Dir]: blobs/<sha256>.tar.zst, trees/<sha256>/volume, projects/<project>/<name>.json, .tmp-* is work under way, lock orders saving against sweeping.
package snapshots

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/internal/lazyregexp"
)

// DirName is the name of the store's folder in the user's folder.
const DirName = "snapshots"

const (
	schema      = 1
	lockTimeout = 10 * time.Minute // as long as another process may take to save
	tmpPrefix   = ".tmp-"
)

// Snapshot is the manifest of a volume snapshot.
type Snapshot struct {
	Schema  int       `json:"schema"`
	Project string    `json:"project"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Reason is why dev took it by itself ("down -v"); empty if the user asked for it.
	Reason  string   `json:"reason,omitempty"`
	Note    string   `json:"note,omitempty"`
	Volumes []Volume `json:"volumes"`
	Images  []Image  `json:"images,omitempty"`
}

// Volume is one volume in a snapshot.
type Volume struct {
	Key        string            `json:"key"`  // in the Compose files
	Name       string            `json:"name"` // on the engine
	Driver     string            `json:"driver,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Blob       string            `json:"blob"`       // sha256:… of the archive
	Size       int64             `json:"size"`       // bytes of the archive
	Compressed int64             `json:"compressed"` // bytes on disk
}

// Image is what a service ran.
type Image struct {
	Service string   `json:"service"`
	Ref     string   `json:"ref"`
	ID      string   `json:"id"`
	Digests []string `json:"digests,omitempty"`
	// Blob is the image's content as the engine saves it, sha256:… of the archive; Size and Compressed are its bytes. Services that ran the same
	// image share it. Snapshots of earlier releases have none.
	Blob       string `json:"blob,omitempty"`
	Size       int64  `json:"size,omitempty"`
	Compressed int64  `json:"compressed,omitempty"`
}

// Automatic reports whether dev took the snapshot by itself.
func (s Snapshot) Automatic() bool { return s.Reason != "" }

// Size is the size of all its archives in bytes.
func (s Snapshot) Size() int64 {
	n, _ := s.sizes()
	return n
}

// Compressed is what its archives take on disk in bytes; other snapshots may share them.
func (s Snapshot) Compressed() int64 {
	_, n := s.sizes()
	return n
}

func (s Snapshot) sizes() (size, compressed int64) {
	for _, v := range s.Volumes {
		size, compressed = size+v.Size, compressed+v.Compressed
	}
	seen := map[string]bool{}
	for _, i := range s.Images {
		if !seen[i.Blob] {
			size, compressed = size+i.Size, compressed+i.Compressed
		}
		seen[i.Blob] = true
	}
	return size, compressed
}

// blobs are the digests of all content that the snapshot needs, with what it is.
func (s Snapshot) blobs() map[string]string {
	needed := map[string]string{}
	for _, i := range s.Images {
		if i.Blob != "" {
			needed[i.Blob] = fmt.Sprintf("image %q", i.Ref)
		}
	}
	for _, v := range s.Volumes {
		needed[v.Blob] = fmt.Sprintf("volume %q", v.Name)
	}
	return needed
}

// NotFoundError is a snapshot that is not there.
type NotFoundError struct{ Project, Name string }

// Error names it.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no such snapshot of project %q: %s", e.Project, e.Name)
}

// Hint is how to find the ones there are.
func (e *NotFoundError) Hint() string { return "dev snapshot ls" }

// Is makes it a [fs.ErrNotExist].
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// Store is the folder of snapshots. It is safe for concurrent use, also by several processes.
type Store struct{ Dir string }

var nameForm = lazyregexp.New(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

// CheckName refuses names that a snapshot cannot have.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("invalid snapshot name %q: it may have letters, digits, dots, - and _, and starts with a letter or digit", name)
	}
	return nil
}

func (s Store) blob(digest string) string {
	return filepath.Join(s.Dir, "blobs", strings.TrimPrefix(digest, "sha256:")+".tar.zst")
}

func (s Store) manifest(project, name string) string {
	return filepath.Join(s.Dir, "projects", project, name+".json")
}

// Saving runs save while nothing is swept. Whatever save adds must be named by a snapshot before it ends.
func (s Store) Saving(ctx context.Context, save func() error) error {
	return s.locked(ctx, (*flock.Flock).TryRLockContext, save)
}

// lockBy is one of the ways to lock.
type lockBy func(*flock.Flock, context.Context, time.Duration) (bool, error)

func (s Store) locked(ctx context.Context, by lockBy, do func() error) (err error) {
	if err := os.MkdirAll(filepath.Join(s.Dir, "blobs"), 0o700); err != nil {
		return fmt.Errorf("make the snapshot store: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	lock := flock.New(filepath.Join(s.Dir, "lock"))
	if _, err := by(lock, waiting, 50*time.Millisecond); err != nil {
		return fmt.Errorf("lock the snapshot store %q: %w", s.Dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return do()
}

// Put writes the manifest of a snapshot whose blobs are there. A name that is taken is an error.
func (s Store) Put(snap Snapshot) error {
	if err := CheckName(snap.Name); err != nil {
		return err
	}
	for digest, what := range snap.blobs() {
		if !s.has(digest) {
			return fmt.Errorf("save snapshot %q: %s: its content is not stored", snap.Name, what)
		}
	}
	name := s.manifest(snap.Project, snap.Name)
	if _, err := os.Stat(name); err == nil {
		return fmt.Errorf("save snapshot %q: there is one of that name", snap.Name)
	}
	snap.Schema = schema
	data, err := json.MarshalIndent(snap, "", "  ")
	if err == nil {
		err = atomicfile.Write(name, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("save snapshot %q: %w", snap.Name, err)
	}
	return nil
}

// Get reads the manifest of a snapshot. A missing one is a [*NotFoundError].
func (s Store) Get(project, name string) (Snapshot, error) {
	var snap Snapshot
	if CheckName(name) != nil {
		return snap, &NotFoundError{project, name}
	}
	data, err := os.ReadFile(s.manifest(project, name))
	if errors.Is(err, fs.ErrNotExist) {
		return snap, &NotFoundError{project, name}
	}
	if err == nil {
		err = json.Unmarshal(data, &snap)
	}
	if err == nil && snap.Schema != schema {
		err = fmt.Errorf("schema %d is not supported (this dev reads %d)", snap.Schema, schema)
	}
	if err != nil {
		return snap, fmt.Errorf("read snapshot %q: %w", name, err)
	}
	snap.Project, snap.Name = project, name // wherever the file came from
	return snap, nil
}

// Has reports whether a snapshot of the name is there.
func (s Store) Has(project, name string) bool {
	_, err := os.Stat(s.manifest(project, name))
	return err == nil
}

// List reads the snapshots of a project, oldest first. One that cannot be read is left out and its error joined to the others.
func (s Store) List(project string) ([]Snapshot, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "projects", project))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []Snapshot
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		snap, err := s.Get(project, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, snap)
	}
	slices.SortFunc(out, func(a, b Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	return out, errors.Join(errs...)
}

// Projects lists the projects that have snapshots.
func (s Store) Projects() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "projects"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Remove removes snapshots of a project, and the blobs that no snapshot needs any more. It tells how many bytes became free.
func (s Store) Remove(ctx context.Context, project string, names ...string) (freed int64, err error) {
	for _, name := range names {
		if !s.Has(project, name) || CheckName(name) != nil {
			return 0, &NotFoundError{project, name}
		}
	}
	err = s.locked(ctx, (*flock.Flock).TryLockContext, func() error {
		for _, name := range names {
			if err := os.Remove(s.manifest(project, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove snapshot %q: %w", name, err)
			}
		}
		_ = os.Remove(filepath.Join(s.Dir, "projects", project)) // if it is empty
		freed, err = s.sweep()
		return err
	})
	return freed, err
}

// sweep removes blobs that no snapshot names, and what interrupted saves left. The store is locked. A manifest that cannot be read may name
// any blob: then all stay.
func (s Store) sweep() (freed int64, err error) {
	used := map[string]bool{}
	projects, err := s.Projects()
	if err != nil {
		return 0, err
	}
	for _, project := range projects {
		snaps, err := s.List(project)
		if err != nil {
			return 0, err
		}
		for _, snap := range snaps {
			for digest := range snap.blobs() {
				used[filepath.Base(s.blob(digest))], used[filepath.Base(s.tree(digest))] = true, true
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.Dir, "blobs"))
	if err != nil {
		return 0, fmt.Errorf("sweep the snapshot store: %w", err)
	}
	for _, e := range entries {
		if used[e.Name()] {
			continue
		}
		if info, err := e.Info(); err == nil {
			freed += info.Size()
		}
		if err := os.Remove(filepath.Join(s.Dir, "blobs", e.Name())); err != nil {
			return freed, fmt.Errorf("sweep the snapshot store: %w", err)
		}
	}
	trees, err := os.ReadDir(s.trees())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return freed, fmt.Errorf("sweep the snapshot store: %w", err)
	}
	for _, e := range trees {
		if used[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.trees(), e.Name())); err != nil {
			return freed, fmt.Errorf("sweep the snapshot store: %w", err)
		}
	}
	return freed, nil
}
