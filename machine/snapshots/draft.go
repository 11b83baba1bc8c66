// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/machine/sparse"
)

// Draft is a snapshot under way.
type Draft struct {
	store Store
	name  string
	dir   string
}

// Begin makes the folder of a new snapshot, aside. The caller puts the disk in it, and ends it with Commit or Discard.
func (s Store) Begin(name string) (*Draft, error) {
	if err := s.checkFree(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("save snapshot %q of machine %q: %w", name, s.Machine, err)
	}
	dir, err := os.MkdirTemp(s.Dir, tmpPrefix+name+"-")
	if err != nil {
		return nil, fmt.Errorf("save snapshot %q of machine %q: %w", name, s.Machine, err)
	}
	return &Draft{store: s, name: name, dir: dir}, nil
}

// checkFree says whether the name is taken, also where a file system does not tell upper from lower case.
func (s Store) checkFree(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	for _, other := range list {
		if strings.EqualFold(other.Name, name) {
			return &ExistsError{s.Machine, other.Name}
		}
	}
	return nil
}

// Reopen goes on with the draft in a folder that Folder told, after a crash. An error that is fs.ErrNotExist says that it is not there.
func (s Store) Reopen(folder, name string) (*Draft, error) {
	dir := filepath.Join(s.Dir, filepath.Base(folder))
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	return &Draft{store: s, name: name, dir: dir}, nil
}

// Folder is the name of the draft's folder in the store's.
func (d *Draft) Folder() string { return filepath.Base(d.dir) }

// Disk is where the copy of the disk belongs.
func (d *Draft) Disk() string { return filepath.Join(d.dir, diskName) }

// Discard gives the draft up.
func (d *Draft) Discard() error {
	err := os.RemoveAll(d.dir)
	_ = os.Remove(d.store.Dir) // if it is empty
	return err
}

// Seal reads the disk at file, which is the draft's or will be, and writes all else that the snapshot has. The disk must not change any more.
func (d *Draft) Seal(ctx context.Context, snap Snapshot, file string) error {
	sums, described, err := describe(ctx, file)
	if err == nil {
		snap.Schema, snap.Name, snap.Machine, snap.Disk = Schema, d.name, d.store.Machine, described
		err = d.write(snap, sums)
	}
	if err != nil {
		return fmt.Errorf("save snapshot %q of machine %q: %w", d.name, d.store.Machine, err)
	}
	return nil
}

func (d *Draft) write(snap Snapshot, sums []byte) error {
	data, err := encode(snap)
	if err != nil {
		return err
	}
	return errors.Join(
		atomicfile.Write(filepath.Join(d.dir, sumsName), sums, 0o600), atomicfile.Write(filepath.Join(d.dir, manifestName), append(data, '\n'), 0o600),
		atomicfile.SyncDir(d.dir),
	)
}

// Commit makes a sealed draft a snapshot. It does nothing that fails half way, and may be repeated after a crash.
func (d *Draft) Commit() (Snapshot, error) {
	snap, err := d.store.sealed(d)
	if err == nil {
		err = errors.Join(os.Rename(d.dir, d.store.folder(d.name)), atomicfile.SyncDir(d.store.Dir))
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("save snapshot %q of machine %q: %w", d.name, d.store.Machine, err)
	}
	return snap, nil
}

// sealed reads back what Seal wrote.
func (s Store) sealed(d *Draft) (Snapshot, error) {
	snap, err := s.manifest(d.Folder())
	snap.Name = d.name
	snap.OnHost = s.onHost(d.Folder())
	return snap, err
}

// Extract copies the disk of a snapshot to a file that does not exist, and compares what was copied with the sums. What is not whole leaves no file.
func (s Store) Extract(ctx context.Context, snap Snapshot, to string) (err error) {
	if snap.Problem != nil {
		return snap.Problem
	}
	if err := sparse.Copy(ctx, to, filepath.Join(s.folder(snap.Name), diskName)); err != nil {
		return fmt.Errorf("copy the disk of snapshot %q: %w", snap.Name, err)
	}
	if err := s.verify(ctx, snap, to); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// Verify reads the whole snapshot and compares it with its sums.
func (s Store) Verify(ctx context.Context, snap Snapshot) error {
	if snap.Problem != nil {
		return snap.Problem
	}
	return s.verify(ctx, snap, filepath.Join(s.folder(snap.Name), diskName))
}

func (s Store) verify(ctx context.Context, snap Snapshot, file string) error {
	want, err := os.ReadFile(filepath.Join(s.folder(snap.Name), sumsName))
	if err != nil {
		return &DamagedError{Name: snap.Name, Err: fmt.Errorf("its sums cannot be read: %w", plain(err))}
	}
	if digest(want) != snap.Disk.Sums {
		return &DamagedError{Name: snap.Name, Err: errors.New("its sums were altered")}
	}
	got, described, err := describe(ctx, file)
	if err != nil {
		return fmt.Errorf("read the disk of snapshot %q: %w", snap.Name, err)
	}
	if described.Size != snap.Disk.Size {
		return &DamagedError{Name: snap.Name, Err: fmt.Errorf("its disk has %d bytes instead of %d", described.Size, snap.Disk.Size)}
	}
	if at := differ(got, want); at >= 0 {
		return &DamagedError{Name: snap.Name, Err: fmt.Errorf("its disk differs from what was saved, first in the %d bytes from %d on", snap.Disk.Chunk, int64(at)*snap.Disk.Chunk)}
	}
	return nil
}
