// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/process"
)

// stopGrace is how long a guest may take to stop its containers and itself where nothing else is asked.
const stopGrace = 60 * time.Second

// stopMargin is what an agent needs beyond the grace: for the power button, and for the kill when that did not help.
// Before that, it may have had to be restored, and its memory may have been tried to be saved.
const stopMargin = 6 * time.Minute

// StopOptions say how patient a stop is.
type StopOptions struct {
	// Timeout is how long containers and the guest may take before the VM is killed; 0: a minute.
	Timeout time.Duration
	// Cold leaves no memory for an instant start: the next start boots.
	Cold bool
}

func (o StopOptions) grace() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return stopGrace
}

// Stop stops the machine's containers and the machine, and waits until nothing of it runs. Where it can, it leaves the quiet guest's memory for an instant
// start; otherwise the machine is powered off. One that is suspended is resumed for it, so that its containers stop in order. A machine that is stopped is
// no error. What does not end in time is killed.
func (m *Machine) Stop(ctx context.Context, o StopOptions, sink Sink) error {
	return m.underBareLock(ctx, sink, func() error { return m.stop(ctx, o, sink) })
}

// Kill ends the machine at once, as a power cut would, also while another command waits for it.
func (m *Machine) Kill(ctx context.Context, sink Sink) error {
	m.orderKill(ctx)
	return m.underBareLock(ctx, sink, func() error { return m.kill(ctx) })
}

// Restart stops the machine and boots it.
func (m *Machine) Restart(ctx context.Context, o StopOptions, sink Sink) error {
	o.Cold = true
	if err := m.Stop(ctx, o, sink); err != nil {
		return err
	}
	return m.Start(ctx, sink)
}

// underLock calls f with the machine as it is once no other command changes it, and once what an interrupted one had decided is in place.
func (m *Machine) underLock(ctx context.Context, sink Sink, f func() error) error {
	return m.underBareLock(ctx, sink, func() error {
		if err := m.putRight(ctx, sink); err != nil {
			return err
		}
		return f()
	})
}

// underBareLock is underLock for what works on a machine in any state.
func (m *Machine) underBareLock(ctx context.Context, sink Sink, f func() error) error {
	unlock, err := m.store.lockMachine(ctx, m.Name, sink)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.reload(); err != nil {
		return err
	}
	return f()
}

// stop is Stop under the lock.
func (m *Machine) stop(ctx context.Context, o StopOptions, sink Sink) error {
	runs, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	if state := m.Saved(); !runs && state != nil && state.Suspended {
		if runs, err = m.resumeToStop(ctx, sink); err != nil {
			return err
		}
	}
	if runs {
		sink.say(m.Name, "stopping the machine")
		if err := m.orderStop(ctx, o); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("stop machine %q: %w", m.Name, ctx.Err())
			}
			sink.send(Event{Machine: m.Name, Warning: true, Text: "the machine did not stop in order and is killed: " + err.Error()})
			return m.kill(ctx)
		}
	}
	if err := m.clear(ctx, o.grace(), sink); err != nil {
		return err
	}
	if o.Cold {
		return m.forgetMemory(ctx, "the machine was stopped to boot anew")
	}
	return nil
}

// orderStop asks the agent to stop and waits for its end.
func (m *Machine) orderStop(ctx context.Context, o StopOptions) error {
	grace, give := o.grace(), m.Agent().Stop
	if o.Cold {
		give = m.Agent().StopCold
	}
	ask, cancel := context.WithTimeout(ctx, launchPatience)
	defer cancel()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for err := give(ask, grace); err != nil; err = give(ask, grace) {
		runs, lookErr := m.agentRuns(ctx)
		if lookErr != nil || !runs {
			return lookErr
		}
		if !errors.Is(err, hostagent.ErrNotRunning) {
			return err // it is there and does not answer
		}
		select {
		case <-ask.Done():
			return err
		case <-tick.C: // it has just been started, or is about to end
		}
	}
	limit := grace + stopMargin
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := m.awaitAgentEnd(wait); err != nil {
		return fmt.Errorf("its host agent did not end within %s: %w", limit, err)
	}
	return nil
}

// orderKill tells the agent, if there is one, to kill the VM.
func (m *Machine) orderKill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	if err := m.Agent().Kill(ctx); err != nil && !errors.Is(err, hostagent.ErrNotRunning) {
		m.store.Logger.Debug("order the kill of a machine", "machine", m.Name, "error", err)
	}
}

// kill is Kill under the lock: the agent first in order, then by force, then a VM that it left.
func (m *Machine) kill(ctx context.Context) error {
	runs, err := m.agentRuns(ctx)
	if err != nil {
		return err
	}
	if runs {
		m.orderKill(ctx)
		wait, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		if m.awaitAgentEnd(wait) != nil {
			if err := m.killAgent(ctx); err != nil {
				return err
			}
		}
	}
	return errors.Join(m.clear(ctx, 0, nil), m.forgetMemory(ctx, "the machine was killed"))
}

// killPatience is how long an agent may take to kill its VM and end before it is killed itself.
const killPatience = 5 * time.Second

// clear ends a VM without an agent, in order if there is grace, and removes stale sockets. No agent runs.
func (m *Machine) clear(ctx context.Context, grace time.Duration, sink Sink) error {
	vm, err := m.orphan(ctx)
	if err != nil {
		return fmt.Errorf("look for the VM of machine %q: %w", m.Name, err)
	}
	if vm != nil {
		sink.send(Event{Machine: m.Name, Warning: true, Text: (&orphanError{}).Error()})
		if err := EndVM(ctx, vm, grace); err != nil {
			return fmt.Errorf("end the VM of machine %q: %w", m.Name, err)
		}
	}
	if err := m.endHelpers(ctx); err != nil {
		return fmt.Errorf("end a helper of machine %q: %w", m.Name, err)
	}
	m.removeStale()
	return nil
}

// helperPatience is how long a share's server may take to see that its VM is gone.
const helperPatience = 3 * time.Second

// endHelpers waits for the servers of shares that a killed agent left, which end with their VM, and ends those that never had one.
func (m *Machine) endHelpers(ctx context.Context) error {
	found, err := m.helpers(ctx)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	for _, p := range found {
		if p.Await(wait) == nil {
			continue
		}
		if err := p.Kill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// helpers are the servers of the machine's shares.
func (m *Machine) helpers(ctx context.Context) ([]process.Process, error) {
	socket := "--socket-path=" + string(m.Dir) + string(filepath.Separator)
	return process.Find(ctx, func(args []string) bool {
		return strings.HasPrefix(filepath.Base(args[0]), "virtiofsd") && slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, socket) })
	})
}

// buttonPause is how often the power button is pressed: a guest that is booting does not notice it, and a monitor may just have lost its client.
const buttonPause = 3 * time.Second

// EndVM ends a VM that no agent serves: with the power button while there is grace, and then by force.
func EndVM(ctx context.Context, vm hostagent.VM, grace time.Duration) error {
	if grace > 0 {
		wait, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		again := time.NewTicker(buttonPause)
		defer again.Stop()
		for wait.Err() == nil {
			_ = vm.PowerOff(wait) // whether it helps shows in the VM's end
			select {
			case <-vm.Done():
				return nil
			case <-again.C:
			case <-wait.Done():
			}
		}
	}
	return vm.Kill(ctx)
}

// RemoveOptions say how Remove deals with what is in its way.
type RemoveOptions struct {
	// Force removes the machine though ending what runs failed, or though it is gone already.
	Force bool
}

// Remove kills the machine and removes it with all its data.
func (m *Machine) Remove(ctx context.Context, o RemoveOptions, sink Sink) error {
	m.orderKill(ctx)
	err := m.underBareLock(ctx, sink, func() error {
		if err := m.kill(ctx); err != nil && !o.Force {
			return err
		}
		return m.remove(ctx, sink)
	})
	var missing *NotFoundError
	if o.Force && errors.As(err, &missing) {
		return nil
	}
	return err
}

// remove takes the folder away: aside first, so that a crash leaves no half machine.
func (m *Machine) remove(ctx context.Context, sink Sink) error {
	sink.say(m.Name, "removing the machine")
	s := m.store
	gone := s.aside(m.Name)
	if err := os.Rename(string(m.Dir), gone); err != nil {
		return fmt.Errorf("remove machine %q: %w", m.Name, err)
	}
	err := errors.Join(atomicfile.SyncDir(s.Dir), os.RemoveAll(gone))
	err = errors.Join(err, m.release(context.WithoutCancel(ctx), func(string) bool { return true }))
	if err != nil {
		return fmt.Errorf("remove machine %q: %w", m.Name, err)
	}
	return nil
}
