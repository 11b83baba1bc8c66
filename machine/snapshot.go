// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/machine/snapshots"
	"github.com/seed71221737/dev/machine/sparse"
)

// Why dev takes snapshots by itself.
const (
	reasonUpgrade = "upgrade"
	reasonRestore = "restore"
	reasonBack    = "failed upgrade"
)

// automaticKept is how many snapshots that dev took by itself a machine keeps.
const automaticKept = 3

// Snapshots is the folder with the machine's snapshots.
func (d Dir) Snapshots() string { return d.file("snapshots") }

func (m *Machine) snapshotStore() snapshots.Store {
	return snapshots.Store{Dir: m.Dir.Snapshots(), Machine: m.Name}
}

// Snapshots lists the machine's snapshots, oldest first; one that cannot be used has a Problem.
func (m *Machine) Snapshots() ([]snapshots.Snapshot, error) { return m.snapshotStore().List() }

// Snapshot returns one of the machine's snapshots.
func (m *Machine) Snapshot(name string) (snapshots.Snapshot, error) {
	return m.snapshotStore().Get(name)
}

// VerifySnapshot reads a snapshot as a whole and says whether it is what was saved.
func (m *Machine) VerifySnapshot(ctx context.Context, name string) (snap snapshots.Snapshot, err error) {
	err = m.underLock(ctx, nil, func() error {
		if snap, err = m.Snapshot(name); err != nil {
			return err
		}
		return m.snapshotStore().Verify(ctx, snap)
	})
	return snap, err
}

// SnapshotOptions say how a snapshot is called.
type SnapshotOptions struct {
	// Name is the snapshot's; empty: the date and time. Note is for people.
	Name, Note string
}

// NoRoomError says that a copy of the disk has no room on this host.
type NoRoomError struct {
	Name       string
	Need, Free int64 // bytes
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("save a snapshot of machine %q: it takes %s and %s are free", e.Name, units.BytesSize(float64(e.Need)), units.BytesSize(float64(e.Free)))
}

// Hint names the next step.
func (e *NoRoomError) Hint() string {
	return fmt.Sprintf("make room on this host; `dev machine df %s --trim` gives back what was deleted in the machine, and `dev machine snapshot ls %s` lists older snapshots", e.Name, e.Name)
}

// spare is what a snapshot leaves free on the host's disk, in bytes.
const spare = 256 << 20

// roomForSnapshot says whether there is room for a copy of the disk. Where the file system lets files share their blocks, a copy takes none.
func (m *Machine) roomForSnapshot() error {
	need, err := sparse.Allocated(m.Dir.DataDisk())
	if err != nil {
		return err
	}
	free, err := sparse.Free(string(m.Dir))
	if err != nil {
		return err
	}
	if need+spare <= free {
		return nil
	}
	probe := m.Dir.file(newDisk + ".probe")
	if sparse.Clone(probe, m.Dir.DataDisk()) == nil {
		return os.Remove(probe)
	}
	return &NoRoomError{Name: m.Name, Need: need, Free: free}
}

// SaveSnapshot saves the machine's disk and spec. A machine that runs goes on, and its snapshot is what a power cut at that moment would leave, with all
// written that the guest had in its caches; one that is stopped is saved as it is.
func (m *Machine) SaveSnapshot(ctx context.Context, o SnapshotOptions, sink Sink) (snap snapshots.Snapshot, err error) {
	if o.Name == "" {
		o.Name = time.Now().UTC().Format("20060102-150405")
	}
	err = m.underLock(ctx, sink, func() error {
		snap, err = m.saveSnapshot(ctx, o.Name, o.Note, "", sink)
		return err
	})
	return snap, err
}

// saveSnapshot is SaveSnapshot under the lock.
func (m *Machine) saveSnapshot(ctx context.Context, name, note, reason string, sink Sink) (snapshots.Snapshot, error) {
	if len(m.Problems) > 0 {
		return snapshots.Snapshot{}, errors.Join(m.Problems...)
	}
	if err := m.sweepChange(""); err != nil {
		return snapshots.Snapshot{}, err
	}
	draft, err := m.snapshotStore().Begin(name)
	if err != nil {
		return snapshots.Snapshot{}, err
	}
	if err = m.roomForSnapshot(); err == nil {
		err = m.fill(ctx, draft, note, reason, sink)
	}
	if err != nil {
		return snapshots.Snapshot{}, errors.Join(err, draft.Discard())
	}
	return draft.Commit()
}

// fill copies the disk into a draft and seals it.
func (m *Machine) fill(ctx context.Context, draft *snapshots.Draft, note, reason string, sink Sink) error {
	live, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	sink.say(m.Name, "saving the machine's disk")
	state := snapshots.Stopped
	copied := false
	if m.isSuspended(ctx) { // its memory stays as good as it is
		state = snapshots.Live
		copied, err = copyStill(ctx, draft.Disk(), m.Dir.DataDisk())
	}
	if err != nil || copied {
		// Somebody who asked for it before this command did may have let it go on meanwhile.
	} else if live {
		state = snapshots.Live
		err = m.copyLive(ctx, draft.Disk())
	} else if err = m.clear(ctx, stopGrace, sink); err == nil {
		err = sparse.Copy(ctx, draft.Disk(), m.Dir.DataDisk())
	}
	if err != nil {
		return err
	}
	snap, err := m.describe(state)
	if err != nil {
		return err
	}
	snap.Note, snap.Reason = note, reason
	sink.say(m.Name, "reading the copy, so that damage to it will show")
	return draft.Seal(ctx, snap, draft.Disk())
}

// copyStill copies a disk that nobody writes to; where somebody does, it says so and leaves nothing.
func copyStill(ctx context.Context, to, disk string) (ok bool, err error) {
	before, err := saved.IdentifyDisk(disk)
	if err == nil {
		err = sparse.Copy(ctx, to, disk)
	}
	if err != nil {
		return false, err
	}
	after, err := saved.IdentifyDisk(disk)
	if err == nil && after == before {
		return true, nil
	}
	return false, errors.Join(err, os.Remove(to))
}

// copyLive has the agent copy the disk.
func (m *Machine) copyLive(ctx context.Context, to string) error {
	status, err := m.Agent().Status(ctx)
	if err != nil {
		return err
	}
	if !fromPhase(status.Phase) && !isAsleep(status.Phase) {
		return &NotReadyError{Name: m.Name, Phase: Phase(status.Phase)}
	}
	err = m.Agent().CopyDisk(ctx, to)
	if err != nil && strings.Contains(err.Error(), "404 ") {
		return fmt.Errorf("save a snapshot of machine %q: its host agent is of an older dev: stop the machine first, or restart it: %w", m.Name, err)
	}
	if ended := (*hostagent.EndedError)(nil); errors.As(err, &ended) {
		return &EndedError{Name: m.Name, Err: ended}
	}
	return err
}

// EndedError says that a machine ended while a snapshot of it was being saved.
type EndedError struct {
	Name string
	Err  error
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("save a snapshot of machine %q: the machine ended meanwhile: %v", e.Name, e.Err)
}

func (e *EndedError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *EndedError) Hint() string {
	return fmt.Sprintf("start it with `dev machine start %s`, then save again; nothing is left of this snapshot", e.Name)
}

// NotReadyError says that a machine is on its way up or down.
type NotReadyError struct {
	Name  string
	Phase Phase
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("save a snapshot of machine %q: it is %s", e.Name, e.Phase)
}

// Hint names the next step.
func (e *NotReadyError) Hint() string {
	return fmt.Sprintf("wait until it runs, or stop it with `dev machine stop %s`", e.Name)
}

// describe is a snapshot's manifest for the machine as it is now.
func (m *Machine) describe(state string) (snapshots.Snapshot, error) {
	text, err := encodeSpec(m.Spec)
	if err != nil {
		return snapshots.Snapshot{}, err
	}
	return snapshots.Snapshot{Created: time.Now().UTC(), State: state, Image: m.Spec.Image, Spec: string(text)}, nil
}

// RestoreOptions say how Restore deals with what is there.
type RestoreOptions struct {
	// Stop stops a machine that runs, and starts it again afterwards; else such a machine is refused.
	Stop bool
	// NoSafety keeps no snapshot of what is there now.
	NoSafety bool
}

// RunningError says that a machine has to be stopped for what was asked.
type RunningError struct{ Name, What string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("%s of machine %q: it is running", e.What, e.Name)
}

// Hint names the next step.
func (e *RunningError) Hint() string {
	return fmt.Sprintf("stop it with `dev machine stop %s`, or give --stop to have it stopped and started again", e.Name)
}

// RestoreSnapshot makes the machine what it was when a snapshot was saved: its disk, its settings and its image. What is there now becomes a snapshot of
// its own, whose name is returned. The snapshot is checked as a whole before anything is changed, and an interrupted restore has either not begun or is
// finished by the next command.
func (m *Machine) RestoreSnapshot(ctx context.Context, name string, o RestoreOptions, sink Sink) (safety string, err error) {
	ran := false
	err = m.underLock(ctx, sink, func() error {
		if _, err := m.Snapshot(name); err != nil {
			return err
		}
		if err := m.settleUpgrade(ctx, sink); err != nil {
			return err
		}
		snap, spec, err := m.restorable(ctx, name)
		if err != nil {
			return err
		}
		if ran, err = m.agentRuns(ctx); err != nil {
			return err
		}
		if ran && !o.Stop {
			return &RunningError{Name: m.Name, What: "restore a snapshot"}
		}
		if _, err := os.Stat(m.Dir.DataDisk()); err == nil && !o.NoSafety { // a machine that lost its disk gets one back
			safety = m.automaticName("before-restore")
		}
		return m.restore(ctx, snap, spec, safety, ran, sink)
	})
	if err != nil {
		safety = ""
	}
	if ran && o.Stop && ctx.Err() == nil {
		err = errors.Join(err, m.Start(ctx, sink)) // also where nothing was restored
	}
	return safety, err
}

// restorable reads a snapshot and says what stands in the way of bringing it back.
func (m *Machine) restorable(ctx context.Context, name string) (snapshots.Snapshot, Spec, error) {
	snap, err := m.Snapshot(name)
	if err == nil {
		err = snap.Problem
	}
	if err != nil {
		return snap, Spec{}, err
	}
	spec, err := ParseSpec("snapshot "+name, []byte(snap.Spec))
	if err != nil {
		return snap, spec, err
	}
	driver := m.store.Drivers[spec.Driver]
	if driver == nil {
		return snap, spec, fmt.Errorf("restore snapshot %q of machine %q: %w", name, m.Name, m.store.unknownDriver(spec.Driver))
	}
	image, err := m.store.Images.Find(spec.Image, spec.Arch)
	if err == nil {
		err = image.Problem
	}
	if err != nil {
		return snap, spec, fmt.Errorf("restore snapshot %q of machine %q: its image: %w", name, m.Name, err)
	}
	return snap, spec, m.store.accept(ctx, m.Name, driver, spec)
}

// restore is RestoreSnapshot once nothing stands in the way.
func (m *Machine) restore(ctx context.Context, snap snapshots.Snapshot, spec Spec, safety string, ran bool, sink Sink) error {
	j := &journal{Kind: kindRestore, Step: stepPrepare, Began: time.Now().UTC(), Ran: ran}
	if err := j.write(m.Dir); err != nil {
		return err
	}
	err := m.store.Images.Use(ctx, spec.Image, m.Name)
	if spec.Previous != "" && m.store.Images.Use(ctx, spec.Previous, m.Name) != nil {
		spec.Previous = "" // it is not on this host any more: there is no way back to it
	}
	if err == nil {
		sink.say(m.Name, "checking and copying snapshot "+snap.Name)
		j.Switch, err = m.prepareSwitch(ctx, snap, spec, safety, reasonRestore, sink)
	}
	if err != nil {
		return errors.Join(err, m.sweepChange(""), endJournal(m.Dir), m.releaseOthers(context.WithoutCancel(ctx)))
	}
	j.Step = stepSwitch
	if err := j.write(m.Dir); err != nil {
		return err
	}
	if err := m.finishSwitch(ctx, j.Switch); err != nil {
		return err
	}
	if err := errors.Join(endJournal(m.Dir), m.forgetOldest(safety)); err != nil {
		return err
	}
	return m.releaseOthers(context.WithoutCancel(ctx))
}

// RemoveSnapshots removes snapshots and says how many bytes they took up.
func (m *Machine) RemoveSnapshots(ctx context.Context, names []string) (freed int64, err error) {
	err = m.underLock(ctx, nil, func() error {
		j, err := readJournal(m.Dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, err := m.Snapshot(name); err != nil {
				return err
			}
			if j != nil && j.Snapshot == name { // its way back
				return fmt.Errorf("remove snapshot %q of machine %q: %w", name, m.Name, m.upgradeUnfinished())
			}
		}
		for _, name := range names {
			n, err := m.snapshotStore().Remove(name)
			if err != nil {
				return err
			}
			freed += n
		}
		return m.releaseOthers(context.WithoutCancel(ctx))
	})
	return freed, err
}

// forgetOldest removes snapshots that dev took by itself, beyond those that are kept. The one named stays in any case.
func (m *Machine) forgetOldest(keep string) error {
	list, err := m.Snapshots()
	if err != nil {
		return err
	}
	var automatic []string
	for _, s := range list {
		if s.Problem == nil && s.Automatic() && s.Name != keep {
			automatic = append(automatic, s.Name)
		}
	}
	for len(automatic) >= automaticKept {
		if _, err := m.snapshotStore().Remove(automatic[0]); err != nil {
			return err
		}
		automatic = automatic[1:]
	}
	return nil
}
