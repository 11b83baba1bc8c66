// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/internal/lazyregexp"
	"github.com/seed71221737/dev/machine/sparse"
)

// Schema is the version of the manifest that this package writes; it refuses others.
const Schema = 1

// Names of a snapshot's files, and the beginning of the names of folders under way.
const (
	manifestName = "snapshot.json"
	diskName     = "data.img"
	sumsName     = "data.sums"
	tmpPrefix    = ".tmp-"
)

// States of a machine when its snapshot was taken.
const (
	// Stopped: the guest had shut down, or its memory was saved apart.
	Stopped = "stopped"
	// Live: the machine ran. The guest's caches were written before; what its programs held in memory is as after a power cut.
	Live = "live"
)

// Snapshot is the manifest of a snapshot.
type Snapshot struct {
	Schema  int       `json:"schema"`
	Name    string    `json:"name"`
	Machine string    `json:"machine"`
	Created time.Time `json:"created"`
	// Reason is why dev took it by itself ("upgrade"); empty if the user asked for it. Note is the user's.
	Reason string `json:"reason,omitempty"`
	Note   string `json:"note,omitempty"`
	// State is Stopped or Live.
	State string `json:"state"`
	// Image is the digest of the image that the machine booted, Spec its machine.yaml.
	Image string `json:"image"`
	Spec  string `json:"spec"`
	Disk  Disk   `json:"disk"`

	// Problem says why the snapshot cannot be restored, where that shows at a glance. OnHost is what it takes up on this host, in bytes; copies that
	// share blocks are each counted whole.
	Problem error `json:"-"`
	OnHost  int64 `json:"-"`
}

// Disk describes a data disk.
type Disk struct {
	Size int64 `json:"size"` // bytes
	// Data is how much of it is in chunks with content, in bytes.
	Data int64 `json:"data"`
	// Chunk is the size that one sum is for, in bytes, and Sums the SHA-256 of the file of sums: it stands for the whole content.
	Chunk int64  `json:"chunk"`
	Sums  string `json:"sums"`
}

// Automatic reports whether dev took the snapshot by itself.
func (s Snapshot) Automatic() bool { return s.Reason != "" }

// envelope is the manifest's file.
type envelope struct {
	SHA256   string          `json:"sha256"` // of Snapshot, without white space
	Snapshot json.RawMessage `json:"snapshot"`
}

// NotFoundError says that there is no such snapshot.
type NotFoundError struct{ Machine, Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find snapshot %q of machine %q: it does not exist", e.Name, e.Machine)
}

// Hint names the next step.
func (e *NotFoundError) Hint() string {
	return fmt.Sprintf("see `dev machine snapshot ls %s`", e.Machine)
}

// ExistsError says that a snapshot's name is taken.
type ExistsError struct{ Machine, Name string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("save snapshot %q of machine %q: there is one of that name", e.Name, e.Machine)
}

// Hint names the next step.
func (e *ExistsError) Hint() string {
	return fmt.Sprintf("choose another name, or remove it with `dev machine snapshot rm %s %s`", e.Machine, e.Name)
}

// DamagedError says that a snapshot is not what it was when it was taken.
type DamagedError struct {
	Name string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("use snapshot %q: it is damaged: %v", e.Name, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *DamagedError) Hint() string {
	return "restore another snapshot; a damaged one is of no use and can be removed with `dev machine snapshot rm`"
}

// NewerError says that a newer dev made the snapshot.
type NewerError struct {
	Name   string
	Schema int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("use snapshot %q: its version is %d and this dev reads %d", e.Name, e.Schema, Schema)
}

// Hint names the next step.
func (e *NewerError) Hint() string { return "use a newer dev" }

var (
	nameForm = lazyregexp.New(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z_-])?$`)
	// device is what Windows keeps for devices, with any ending.
	device = lazyregexp.New(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)
)

// CheckName refuses names that a snapshot cannot have on every system.
func CheckName(name string) error {
	if !nameForm.MatchString(name) || device.MatchString(name) {
		return fmt.Errorf("use %q as a snapshot's name: it can have up to 63 letters, digits, dots, _ and -, begins with a letter or digit, and is no name of a device", name)
	}
	return nil
}

// Store is the folder of one machine's snapshots.
type Store struct{ Dir, Machine string }

func (s Store) folder(name string) string { return filepath.Join(s.Dir, name) }

// List returns all snapshots, oldest first. One that cannot be used is listed with its Problem.
func (s Store) List() ([]Snapshot, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the snapshots of machine %q: %w", s.Machine, err)
	}
	var list []Snapshot
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			list = append(list, s.read(e.Name()))
		}
	}
	slices.SortFunc(list, func(a, b Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// Get returns a snapshot; a *NotFoundError when there is none. One that cannot be used is returned with its Problem.
func (s Store) Get(name string) (Snapshot, error) {
	if info, err := os.Stat(s.folder(name)); CheckName(name) != nil || err != nil || !info.IsDir() {
		return Snapshot{}, &NotFoundError{s.Machine, name}
	}
	return s.read(name), nil
}

// read looks at a snapshot's folder without reading its disk.
func (s Store) read(name string) Snapshot {
	snap, err := s.manifest(name)
	snap.Name, snap.Machine = name, s.Machine // wherever it came from
	snap.OnHost = s.onHost(name)
	var newer *NewerError
	switch {
	case errors.As(err, &newer):
		snap.Problem = err
	case err != nil:
		snap.Problem = &DamagedError{Name: name, Err: err}
	}
	return snap
}

// onHost is what a snapshot's files take up.
func (s Store) onHost(name string) int64 {
	var sum int64
	for _, file := range []string{manifestName, diskName, sumsName} {
		if n, err := sparse.Allocated(filepath.Join(s.folder(name), file)); err == nil {
			sum += n
		}
	}
	return sum
}

func (s Store) manifest(name string) (snap Snapshot, err error) {
	data, err := os.ReadFile(filepath.Join(s.folder(name), manifestName))
	if err != nil {
		return snap, fmt.Errorf("its manifest cannot be read: %w", plain(err))
	}
	if snap, err = decode(name, data); err != nil {
		return snap, err
	}
	info, err := os.Stat(filepath.Join(s.folder(name), diskName))
	if err != nil {
		return snap, fmt.Errorf("its disk cannot be used: %w", plain(err))
	}
	if info.Size() != snap.Disk.Size {
		return snap, fmt.Errorf("its disk has %d bytes instead of %d", info.Size(), snap.Disk.Size)
	}
	return snap, nil
}

// decode reads a manifest's file and checks that it is what was written.
func decode(name string, data []byte) (snap Snapshot, err error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return snap, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, e.Snapshot); err != nil {
		return snap, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if digest(compact.Bytes()) != e.SHA256 {
		return snap, errors.New("its manifest was altered")
	}
	var head struct{ Schema int }
	if err := json.Unmarshal(e.Snapshot, &head); err != nil {
		return snap, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	if head.Schema > Schema {
		return snap, &NewerError{Name: name, Schema: head.Schema}
	}
	if err := json.Unmarshal(e.Snapshot, &snap); err != nil {
		return snap, fmt.Errorf("its manifest cannot be read: %w", err)
	}
	return snap, snap.check()
}

// check refuses figures that no snapshot has: the rest of the program reckons with them.
func (s Snapshot) check() error {
	d := s.Disk
	if s.Schema < 1 || d.Size < 0 || d.Chunk != chunkFor(d.Size) {
		return errors.New("its manifest has figures that cannot be")
	}
	return nil
}

func encode(snap Snapshot) ([]byte, error) {
	inner, err := json.Marshal(snap)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(envelope{SHA256: digest(inner), Snapshot: inner}, "", "  ")
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// plain is a file error without the path.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Remove takes a snapshot away: aside first, so that a crash leaves no half of one. It tells how many bytes it took up.
func (s Store) Remove(name string) (freed int64, err error) {
	snap, err := s.Get(name)
	if err != nil {
		return 0, err
	}
	gone, err := os.MkdirTemp(s.Dir, tmpPrefix+name+"-")
	if err == nil {
		err = errors.Join(os.Rename(s.folder(name), filepath.Join(gone, "gone")), atomicfile.SyncDir(s.Dir), os.RemoveAll(gone))
	}
	if err != nil {
		return 0, fmt.Errorf("remove snapshot %q of machine %q: %w", name, s.Machine, err)
	}
	_ = os.Remove(s.Dir) // if it is empty
	return snap.OnHost, nil
}

// Sweep removes what crashes left, but for the folder keep; "" keeps none.
func (s Store) Sweep(keep string) error {
	left, err := filepath.Glob(filepath.Join(s.Dir, tmpPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if filepath.Base(dir) == keep {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what an interrupted snapshot left: %w", err)
		}
	}
	return nil
}
