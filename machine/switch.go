// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/snapshots"
)

// diskSwitch is the replacement of a machine's data disk and spec by a snapshot's. All that takes long is done before it is written to the journal; what is
// left are renames, which can be repeated.
type diskSwitch struct {
	// Disk is the new disk's name in the machine's folder.
	Disk string `json:"disk"`
	// Draft is the folder of the snapshot of what is there now, to which the present disk moves; Safety is that snapshot's name. Both are empty where none is
	// kept.
	Draft  string `json:"draft,omitempty"`
	Safety string `json:"safety,omitempty"`
	// Spec is the new machine.yaml.
	Spec string `json:"spec"`
}

// newDisk is the name of a disk that is about to replace the data disk.
const newDisk = "data.img.new"

// prepareSwitch puts a snapshot's disk beside the machine's, stops the machine, and puts what is there then into a snapshot of its own, unless safety is
// empty.
func (m *Machine) prepareSwitch(ctx context.Context, snap snapshots.Snapshot, spec Spec, safety, reason string, sink Sink) (*diskSwitch, error) {
	if err := m.sweepChange(""); err != nil {
		return nil, err
	}
	text, err := encodeSpec(spec)
	if err != nil {
		return nil, err
	}
	s := &diskSwitch{Disk: newDisk, Spec: string(text)}
	if err := m.snapshotStore().Extract(ctx, snap, m.Dir.file(newDisk)); err != nil {
		return nil, err
	}
	if err := m.rest(ctx, sink); err != nil {
		return nil, err
	}
	if safety == "" {
		return s, atomicfile.SyncDir(string(m.Dir))
	}
	if m.Spec.Image == "" { // a spec that cannot be read: what is kept of the machine is its disk
		m.Spec = spec
	}
	draft, err := m.draftOfPresent(ctx, safety, reason)
	if err != nil {
		return nil, errors.Join(err, m.sweepChange(""))
	}
	s.Draft, s.Safety = draft.Folder(), safety
	return s, atomicfile.SyncDir(string(m.Dir))
}

// draftOfPresent makes a snapshot of a stopped machine, without its disk, which is not touched before it is replaced: until then nothing is decided, and
// saved memory that fits it is as good as ever.
func (m *Machine) draftOfPresent(ctx context.Context, name, reason string) (*snapshots.Draft, error) {
	draft, err := m.snapshotStore().Begin(name)
	if err != nil {
		return nil, err
	}
	described, err := m.describe(snapshots.Stopped)
	described.Reason = reason
	if err == nil {
		err = draft.Seal(ctx, described, m.Dir.DataDisk())
	}
	if err != nil {
		return nil, errors.Join(err, draft.Discard())
	}
	return draft, nil
}

// finishSwitch puts disk and spec in place. It can be killed and repeated at any point.
func (m *Machine) finishSwitch(ctx context.Context, s *diskSwitch) error {
	if err := m.forgetMemory(ctx, "the machine's disk was replaced"); err != nil {
		return err
	}
	if err := m.exchangeDisks(s); err != nil {
		return fmt.Errorf("put the disk of machine %q in place: %w", m.Name, err)
	}
	spec, err := ParseSpec(m.Dir.Spec(), []byte(s.Spec))
	if err != nil {
		return err
	}
	if err := writeSpec(m.Dir, spec); err != nil {
		return err
	}
	if err := m.commitDraft(s); err != nil {
		return err
	}
	if err := m.reload(); err != nil {
		return err
	}
	return m.releaseOthers(context.WithoutCancel(ctx))
}

// exchangeDisks moves the disk that is there into the draft, if there is one, and the new one into its place.
func (m *Machine) exchangeDisks(s *diskSwitch) error {
	next := m.Dir.file(filepath.Base(s.Disk))
	if _, err := os.Stat(next); errors.Is(err, fs.ErrNotExist) {
		return nil // it was done before the crash
	}
	if s.Draft != "" {
		draft, err := m.snapshotStore().Reopen(s.Draft, s.Safety)
		if err == nil {
			err = moveOnce(m.Dir.DataDisk(), draft.Disk())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // where there is nothing to keep any more, the new disk is all there is
			return err
		}
	}
	return errors.Join(os.Rename(next, m.Dir.DataDisk()), atomicfile.SyncDir(string(m.Dir)))
}

// moveOnce moves a file to a place in another folder, unless that has been done.
func moveOnce(from, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(atomicfile.SyncDir(filepath.Dir(to)), atomicfile.SyncDir(filepath.Dir(from)))
}

// commitDraft makes what was there before a snapshot.
func (m *Machine) commitDraft(s *diskSwitch) error {
	if s.Draft == "" {
		return nil
	}
	draft, err := m.snapshotStore().Reopen(s.Draft, s.Safety)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was done before the crash
	}
	if err == nil {
		_, err = draft.Commit()
	}
	return err
}

// sweepChange removes what an interrupted command left that had not changed anything yet. The machine's lock is held.
func (m *Machine) sweepChange(keep string) error {
	err := os.Remove(m.Dir.file(newDisk))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, m.snapshotStore().Sweep(keep))
}

// rest makes sure that nothing uses the disk: a machine that runs is stopped in order, and what its memory was saved with goes with what it fits.
func (m *Machine) rest(ctx context.Context, sink Sink) error {
	runs, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	if runs {
		return m.stop(ctx, StopOptions{Cold: true}, sink)
	}
	return m.clear(ctx, stopGrace, sink)
}

// isSuspended says whether the machine's containers are in saved memory, and nobody who uses the machine wakes it.
func (m *Machine) isSuspended(ctx context.Context) bool {
	if status, err := m.Agent().Status(ctx); err == nil {
		return status.Phase == hostagent.Suspended && !status.Asleep
	}
	state := m.Saved()
	return state != nil && state.Suspended
}

// automaticName is a name for a snapshot that dev takes by itself, which no other has.
func (m *Machine) automaticName(what string) string {
	now := time.Now()
	for {
		name := what + "-" + now.UTC().Format("20060102-150405")
		if _, err := m.snapshotStore().Get(name); err != nil {
			return name
		}
		now = now.Add(time.Second)
	}
}
