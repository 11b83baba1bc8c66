// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/saved"
)

// SuspendError says why a machine could not be suspended. It goes on as it was, unless its agent ended.
type SuspendError struct {
	Name string
	Err  error
	// Ended says that the machine's agent ended meanwhile.
	Ended bool
}

func (e *SuspendError) Error() string { return fmt.Sprintf("suspend machine %q: %v", e.Name, e.Err) }

func (e *SuspendError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *SuspendError) Hint() string {
	if e.Ended {
		return fmt.Sprintf("`dev machine start %s` starts it again, and ends what is left of it before", e.Name)
	}
	if h := hintOf(e.Err); h != "" {
		return h
	}
	return fmt.Sprintf("it goes on; `dev machine stop %s` stops it", e.Name)
}

// Suspend saves the machine's memory with the containers that run in it and ends its VM. They go on where they were with Resume or Start, also after this
// computer was off. A machine that is suspended is no error.
func (m *Machine) Suspend(ctx context.Context, sink Sink) error {
	return m.underLock(ctx, sink, func() error {
		status := m.Status(ctx)
		switch {
		case status.Phase == PhaseSuspended:
			return nil
		case status.Agent == nil || !status.Phase.Up() && status.Phase != PhaseStarting:
			return &NotRunningError{Name: m.Name, Phase: status.Phase}
		}
		sink.say(m.Name, "saving the machine's memory")
		err := m.withEvents(ctx, sink, m.Agent().Suspend)
		switch {
		case err == nil:
			return nil
		case m.agentDied(ctx, err):
			return &SuspendError{Name: m.Name, Err: errAgentDied, Ended: true}
		}
		return &SuspendError{Name: m.Name, Err: err}
	})
}

// errAgentDied is an agent that ended before it answered.
var errAgentDied = errors.New("its host agent ended meanwhile")

// agentDied says whether the agent did not answer because it ended. One that refused lives.
func (m *Machine) agentDied(ctx context.Context, err error) bool {
	var refused *hostagent.RefusedError
	if errors.As(err, &refused) {
		return false
	}
	wait, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	return m.awaitAgentEnd(wait) == nil
}

// Resume starts a machine that was suspended; others too.
func (m *Machine) Resume(ctx context.Context, sink Sink) error { return m.Start(ctx, sink) }

// wake has a host agent that has no VM restore it.
func (m *Machine) wake(ctx context.Context, sink Sink) error {
	sink.say(m.Name, "resuming the machine")
	return m.withEvents(ctx, sink, m.Agent().Resume)
}

// withEvents asks something of the agent and passes on what it tells meanwhile.
func (m *Machine) withEvents(ctx context.Context, sink Sink, ask func(context.Context) error) error {
	follow, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		err := m.Agent().Events(follow, func(e hostagent.Event) {
			if e.Kind != "stage" && e.Kind != "phase" {
				m.tell(sink, e)
			}
		})
		if err != nil && follow.Err() == nil {
			m.store.Logger.Debug("follow a host agent", "machine", m.Name, "error", err)
		}
	}()
	err := ask(ctx)
	cancel()
	<-told
	return err
}

// resumeToStop brings a suspended machine without an agent back, so that it can be stopped in order; the lock is held. One that cannot be started is
// left as it is.
func (m *Machine) resumeToStop(ctx context.Context, sink Sink) (runs bool, err error) {
	sink.say(m.Name, "resuming the machine, to stop its containers in order")
	if err := m.usable(ctx); err != nil {
		return false, err
	}
	if err := m.clear(ctx, stopGrace, sink); err != nil {
		return false, err
	}
	begin := time.Now()
	if err := m.goOn(ctx, hostagent.Starting, m.launch(ctx), begin, sink); err != nil { // an order that comes before would break the start off
		return false, err
	}
	return true, nil
}

// forgetMemory removes saved memory. No agent runs.
func (m *Machine) forgetMemory(ctx context.Context, why string) error {
	k := saved.Keeper{Dir: m.Dir.Memory(), Disk: m.Dir.DataDisk(), Logger: m.store.Logger}
	if err := k.Drop(ctx, why); err != nil {
		return fmt.Errorf("machine %q: %w", m.Name, err)
	}
	return nil
}
