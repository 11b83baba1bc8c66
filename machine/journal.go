// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// journalVersion is the newest version of a machine's journal that this program writes, and reads; it refuses newer ones. Since version 2 the disk that is
// replaced may have to be moved into its snapshot yet.
const journalVersion = 2

// journal is what a command that changes a machine in several steps has done so far: journal.json in the machine's folder. It is written before each step,
// and gone when all is done, so that after a crash the next command knows how to go on.
type journal struct {
	Version int       `json:"version"`
	Kind    kind      `json:"kind"`
	Step    step      `json:"step"`
	Began   time.Time `json:"began"`
	// Ran says that the machine ran before, Containers which of its containers did.
	// Ailing says that its guest had problems then, which the new image is not to blame for.
	Ran        bool        `json:"ran,omitempty"`
	Ailing     bool        `json:"ailing,omitempty"`
	Containers []Container `json:"containers,omitempty"`
	// Snapshot is the one taken before.
	Snapshot string `json:"snapshot,omitempty"`
	// Old and New are an upgrade's images by their digest; OldOldest and OldPrevious the spec's notes before it, for the way back.
	Old         string `json:"old,omitempty"`
	New         string `json:"new,omitempty"`
	OldOldest   int    `json:"old_oldest,omitempty"`
	OldPrevious string `json:"old_previous,omitempty"`
	// Patience is how long the machine may take to be well with the new image, in nanoseconds; 0: provePatience.
	Patience time.Duration `json:"patience,omitempty"`
	// Tries counts the starts with the new image. Why says why the machine goes back to the old one.
	Tries int    `json:"tries,omitempty"`
	Why   string `json:"why,omitempty"`
	// Switch is a replacement of the data disk that has been decided: it is finished before anything else.
	Switch *diskSwitch `json:"switch,omitempty"`
	// DiskBack says that an upgrade has brought the snapshot's disk back.
	DiskBack bool `json:"disk_back,omitempty"`
}

// kind is what a journal is of.
type kind string

const (
	kindUpgrade kind = "upgrade"
	kindRestore kind = "restore"
	kindShrink  kind = "shrink" // its steps are a restore's
)

// what names a change to people.
func (k kind) what() string {
	switch k {
	case kindUpgrade:
		return "an upgrade"
	case kindShrink:
		return "making the disk smaller"
	}
	return "a restore"
}

// step is how far a change has come.
type step string

const (
	// stepPrepare: nothing of the machine has been changed; it may be stopped.
	stepPrepare step = "prepare"
	// stepTry: the spec has the new image, or is about to. It has yet to prove itself.
	stepTry step = "try"
	// stepProven: the new image works; what is left is to stop a machine that did not run.
	stepProven step = "proven"
	// stepBack: the new image does not work, and the old one is brought back.
	stepBack step = "back"
	// stepSwitch: a restore's new disk and spec are there as a whole; what is left is to put them in place.
	stepSwitch step = "switch"
)

// Journal is the file with how far a change in several steps has come.
func (d Dir) Journal() string { return d.file("journal.json") }

// readJournal reads the journal, nil if there is none.
func readJournal(d Dir) (*journal, error) {
	data, err := os.ReadFile(d.Journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no journal and no error: the usual case
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of machine %q: %w", d.Name(), err)
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, &JournalError{Name: d.Name(), Err: err}
	}
	if j.Version > journalVersion {
		return nil, &JournalError{Name: d.Name(), newer: true, Err: fmt.Errorf("its version is %d and this dev reads up to %d: use a newer dev", j.Version, journalVersion)}
	}
	if err := j.check(); err != nil {
		return nil, &JournalError{Name: d.Name(), Err: err}
	}
	return &j, nil
}

// replaces: the change is the replacement of the disk by another.
func (j *journal) replaces() bool { return j.Kind == kindRestore || j.Kind == kindShrink }

// check refuses what no step writes.
func (j *journal) check() error {
	digests := []string{j.Old, j.New}
	steps := []step{stepPrepare, stepTry, stepProven, stepBack}
	if j.replaces() {
		digests, steps = nil, []step{stepPrepare, stepSwitch}
	} else if j.Kind != kindUpgrade {
		return fmt.Errorf("it is of a change %q, which this dev does not know", j.Kind)
	}
	for _, d := range digests {
		if !hexDigest.MatchString(d) {
			return fmt.Errorf("%q is no image's digest", d)
		}
	}
	if !slices.Contains(steps, j.Step) {
		return fmt.Errorf("its step %q is none of change %q", j.Step, j.Kind)
	}
	if j.Step == stepSwitch && j.Switch == nil {
		return errors.New("it does not say what to put in place")
	}
	return nil
}

// write notes how far the change has come, durably.
func (j *journal) write(d Dir) error {
	j.Version = 1 // the oldest that says all that there is to say
	if j.Switch != nil && j.Switch.Draft != "" {
		j.Version = 2
	}
	data, err := json.MarshalIndent(j, "", "  ")
	if err == nil {
		err = atomicfile.Write(d.Journal(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what is done to machine %q: %w", d.Name(), err)
	}
	return nil
}

// endJournal notes that the change is done.
func endJournal(d Dir) error {
	if err := errors.Join(os.Remove(d.Journal()), atomicfile.SyncDir(string(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that all is done to machine %q: %w", d.Name(), err)
	}
	return nil
}

// JournalError says that a machine's journal cannot be used.
type JournalError struct {
	Name string
	Err  error
	// newer: a newer dev wrote it.
	newer bool
}

func (e *JournalError) Error() string {
	return fmt.Sprintf("read the journal of machine %q: %v", e.Name, e.Err)
}

func (e *JournalError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *JournalError) Hint() string {
	return "it tells how far an upgrade or a restore came that was interrupted; if it is of no use any more, remove journal.json from the machine's folder"
}

// UnfinishedError says that a change of a machine was interrupted.
type UnfinishedError struct {
	Name, What string
	// Finish is the command that finishes it.
	Finish string
}

func (e *UnfinishedError) Error() string { return e.What + " was interrupted" }

// Hint names the next step.
func (e *UnfinishedError) Hint() string { return fmt.Sprintf("`%s` finishes it", e.Finish) }

// unfinished tells a change that was interrupted, nil if there is none. A change whose command is at work is none: it holds the machine's lock.
func (m *Machine) unfinished() error {
	if _, err := os.Stat(m.Dir.Journal()); err != nil {
		return nil // there is no journal
	}
	unlock, free := m.store.tryLock(m.Name)
	if !free {
		return nil
	}
	defer unlock()
	j, err := readJournal(m.Dir)
	if err == nil && j != nil && j.Kind != kindUpgrade {
		return &UnfinishedError{Name: m.Name, What: j.Kind.what(), Finish: "dev machine start " + m.Name}
	}
	return m.upgradeUnfinished()
}

// upgradeUnfinished tells an upgrade that was interrupted, nil if there is none. No command that could be at it is at work.
func (m *Machine) upgradeUnfinished() error {
	j, err := readJournal(m.Dir)
	if err != nil || j == nil || j.Kind != kindUpgrade {
		return err
	}
	return &UnfinishedError{Name: m.Name, What: j.Kind.what() + " to image " + shortDigest(j.New), Finish: "dev machine upgrade " + m.Name}
}

func shortDigest(d string) string { return d[:min(len(d), 12)] }
