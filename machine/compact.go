// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/machine/sparse"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// SuspendedError says that a machine's memory would be lost with what was asked, and with it what its containers have in theirs.
type SuspendedError struct{ Name, What string }

func (e *SuspendedError) Error() string {
	return fmt.Sprintf("%s of machine %q: it is suspended, with its containers running", e.What, e.Name)
}

// Hint names the next step.
func (e *SuspendedError) Hint() string {
	return fmt.Sprintf("resume it with `dev machine resume %s`, and stop it if it is to be stopped", e.Name)
}

// Compact gives back to the host what is free on the disk of a machine that is stopped: its image boots for that and nothing else, and then what still
// holds only zeros is given back, too. It can be interrupted at any time and loses nothing. A machine that runs is a *RunningError: its guest can be asked
// to trim its disk.
func (m *Machine) Compact(ctx context.Context, sink Sink) error {
	return m.underLock(ctx, sink, func() error {
		if err := m.idleDisk(ctx, "compact the disk", sink); err != nil {
			return err
		}
		sink.say(m.Name, "booting it to look after its disk")
		_, err := m.maintain(ctx, maintenance{task: proto.Maintenance{Task: proto.TaskTrim}}, sink)
		var old *OldImageError
		if errors.As(err, &old) {
			sink.send(Event{Machine: m.Name, Warning: true, Text: "its image is too old to give back what was deleted: only what holds zeros is given back", Hint: old.Hint()})
			err = nil
		}
		if err != nil {
			return err
		}
		_, err = sparse.Punch(ctx, m.Dir.DataDisk())
		if errors.Is(err, errors.ErrUnsupported) {
			sink.send(Event{Machine: m.Name, Warning: true, Text: "this host's file system has no holes in files: the disk takes up its whole size"})
			return nil
		}
		return err
	})
}

// idleDisk sees to it that nobody uses the data disk of a machine that is stopped, and that no memory fits it any more.
func (m *Machine) idleDisk(ctx context.Context, what string, sink Sink) error {
	if len(m.Problems) > 0 {
		return errors.Join(m.Problems...)
	}
	if err := m.upgradeUnfinished(); err != nil {
		return err
	}
	runs, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	if runs {
		return &RunningError{Name: m.Name, What: what}
	}
	if state, err := saved.Read(m.Dir.Memory()); err == nil && state != nil {
		if state.Suspended {
			return &SuspendedError{Name: m.Name, What: what}
		}
		sink.say(m.Name, "its saved memory does not fit the disk any more: the next start boots")
	}
	if err := m.usable(ctx); err != nil {
		return err
	}
	if err := m.clear(ctx, stopGrace, sink); err != nil {
		return err
	}
	return m.forgetMemory(ctx, "the machine's disk was compacted")
}
