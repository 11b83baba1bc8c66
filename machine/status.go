// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// Phase is what a machine is doing, as observed.
type Phase string

// Phases of a machine.
const (
	PhaseRunning   Phase = "running"
	PhaseDegraded  Phase = "degraded" // the engine answers, something beside it does not
	PhaseStarting  Phase = "starting"
	PhaseStopping  Phase = "stopping"
	PhaseStopped   Phase = "stopped"
	PhaseSuspended Phase = "suspended"
	PhaseAsleep    Phase = "asleep" // suspended because nobody used it: it wakes for the first who does
	PhaseBroken    Phase = "broken"
)

// Up says whether the engine can be asked. One that is asleep can: the question wakes it.
func (p Phase) Up() bool { return p == PhaseRunning || p == PhaseDegraded || p == PhaseAsleep }

// Status is what a machine is now, derived from locks and sockets that answer. Problems may have a Hint.
type Status struct {
	Phase    Phase
	Problems []error
	// Endpoint is the engine's address on this host while the machine is up: unix:///… or npipe:////./pipe/….
	Endpoint string
	// Agent is the host agent's own answer, nil where it gave none.
	Agent *hostagent.Status
}

// StatusPatience bounds the look at one machine where the context does not: an agent answers in a few milliseconds, or it hangs.
const StatusPatience = 300 * time.Millisecond

// Statuses looks at machines side by side, each with a deadline of StatusPatience, and returns what they are in the same order.
func Statuses(ctx context.Context, machines []*Machine) []Status {
	list := make([]Status, len(machines))
	var all sync.WaitGroup
	for i, m := range machines {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, StatusPatience)
			defer cancel()
			list[i] = m.Status(ctx)
		})
	}
	all.Wait()
	return list
}

// Status looks at the machine. It takes no longer than ctx allows, and 5 s at most.
func (m *Machine) Status(ctx context.Context) Status {
	s := m.look(ctx)
	if err := m.unfinished(); err != nil {
		s.Problems = append(s.Problems, err)
	}
	return s
}

func (m *Machine) look(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		agent, err := m.Agent().Status(ctx)
		if err == nil {
			return m.fromAgent(agent)
		}
		alive, lockErr := m.Dir.agentAlive()
		switch {
		case lockErr != nil:
			return Status{Phase: PhaseBroken, Problems: append(m.problems(), lockErr)}
		case !alive:
			return m.withoutAgent(ctx)
		case errors.Is(err, hostagent.ErrNotRunning):
			return Status{Phase: PhaseStarting, Problems: m.problems()} // before it serves its socket, or after it closed it
		case ctx.Err() != nil:
			return Status{Phase: PhaseBroken, Problems: append(m.problems(), &hungError{name: m.Name, err: err})}
		}
		select {
		case <-ctx.Done():
		case <-tick.C: // it was about to end
		}
	}
}

// withoutAgent is the status of a machine without an agent.
func (m *Machine) withoutAgent(ctx context.Context) Status {
	if m.leftovers() {
		if vm, err := m.orphan(ctx); err == nil && vm != nil {
			return Status{Phase: PhaseBroken, Problems: append(m.problems(), &orphanError{name: m.Name})}
		}
	}
	if len(m.Problems) > 0 {
		return Status{Phase: PhaseBroken, Problems: m.problems()}
	}
	if state := m.Saved(); state != nil && state.Suspended {
		return Status{Phase: PhaseSuspended}
	}
	return Status{Phase: PhaseStopped}
}

// problems is a copy that can be appended to.
func (m *Machine) problems() []error { return append([]error(nil), m.Problems...) }

// fromAgent translates what the agent says. The machine's own problems do not stop a machine that runs.
func (m *Machine) fromAgent(a *hostagent.Status) Status {
	s := Status{Agent: a, Problems: m.problems()}
	for _, p := range a.Problems {
		s.Problems = append(s.Problems, &agentProblem{p})
	}
	switch a.Phase {
	case hostagent.Running:
		s.Phase = PhaseRunning
	case hostagent.Degraded:
		s.Phase = PhaseDegraded
	case hostagent.Starting, hostagent.Resuming:
		s.Phase = PhaseStarting
	case hostagent.Suspended:
		s.Phase = PhaseSuspended
		if a.Asleep {
			s.Phase = PhaseAsleep
		}
	case hostagent.Stopping, hostagent.Suspending, hostagent.Stopped, hostagent.Failed:
		s.Phase = PhaseStopping
	default:
		s.Phase = PhaseBroken
		s.Problems = append(s.Problems, fmt.Errorf("its host agent is in phase %q, which this dev does not know: use a newer dev", a.Phase))
	}
	if s.Phase.Up() {
		s.Endpoint = a.Docker
	}
	return s
}

// leftovers says whether sockets lie in the folder, as they do after a process that was killed.
func (m *Machine) leftovers() bool {
	entries, err := os.ReadDir(string(m.Dir))
	if err != nil {
		return true // look closer
	}
	for _, e := range entries {
		if isStale(e.Name()) {
			return true
		}
	}
	return false
}

// orphan finds the machine's VM that runs without an agent.
func (m *Machine) orphan(ctx context.Context) (hostagent.VM, error) {
	f, ok := m.store.Drivers[m.Spec.Driver].(Finder)
	if !ok {
		return m.orphanOfAny(ctx)
	}
	return f.Find(ctx, m.Dir)
}

// orphanOfAny asks every driver, for a machine whose spec cannot be read.
func (m *Machine) orphanOfAny(ctx context.Context) (hostagent.VM, error) {
	for _, d := range m.store.Drivers {
		if f, ok := d.(Finder); ok && m.Spec.Driver == "" {
			if vm, err := f.Find(ctx, m.Dir); vm != nil || err != nil {
				return vm, err
			}
		}
	}
	return nil, nil //nolint:nilnil // no VM and no error: the usual case
}

// removeStale takes away the sockets that a killed process left. The caller knows that no agent runs.
func (m *Machine) removeStale() {
	entries, err := os.ReadDir(string(m.Dir))
	if err != nil {
		return // nothing can be there that is in the way
	}
	for _, e := range entries {
		if isStale(e.Name()) {
			os.Remove(m.Dir.file(e.Name()))
		}
	}
}

// hungError is an agent that does not answer.
type hungError struct {
	name string
	err  error
}

func (e *hungError) Error() string { return "its host agent does not answer: " + e.err.Error() }

func (e *hungError) Unwrap() error { return e.err }

// Hint names the next step.
func (e *hungError) Hint() string { return fmt.Sprintf("`dev machine restart %s` replaces it", e.name) }

// orphanError is a VM whose agent died.
type orphanError struct{ name string }

func (e *orphanError) Error() string { return "its host agent died and left the VM running" }

// Hint names the next step.
func (e *orphanError) Hint() string {
	return fmt.Sprintf("`dev machine start %s` powers the VM off and starts it again", e.name)
}

// agentProblem is a problem that the agent reports.
type agentProblem struct{ p hostagent.Problem }

func (e *agentProblem) Error() string { return e.p.Text }

// Hint names the next step.
func (e *agentProblem) Hint() string { return e.p.Hint }
