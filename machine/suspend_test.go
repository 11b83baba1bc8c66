// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

// diesAt is the file that has an agent end when it gets an order.
func diesAt(m *machine.Machine, order string) string {
	return filepath.Join(string(m.Dir), "dies-at-"+order)
}

// ordered hands an order to the stand-in agent and answers with what came of it.
func (a *standInAgent) ordered(m *machine.Machine, order string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if os.Remove(diesAt(m, order)) == nil {
			os.Exit(1)
		}
		if a.keeper == nil {
			http.Error(w, "this agent saves no memory", http.StatusConflict)
			return
		}
		a.orders <- order
		if err := <-a.done; err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

// startFrom starts the VM from saved memory, where there is some that fits, and boots it otherwise, as the real agent does.
func (a *standInAgent) startFrom(ctx context.Context, driver machine.Driver, m *machine.Machine, link hostagent.Link) (hostagent.VM, error) {
	if a.keeper == nil {
		return driver.Start(ctx, m.Dir, m.Spec, link)
	}
	state, why, err := a.keeper.Take(ctx)
	if err != nil {
		return nil, err
	}
	if why != "" {
		a.set(hostagent.Starting, "", why)
	}
	if state != nil {
		link.State, link.Loaded = state.Path(), a.keeper.Consume
		vm, err := driver.Start(ctx, m.Dir, m.Spec, link)
		if err == nil {
			a.say(m, "restored")
			time.Sleep(100 * time.Millisecond) // until the guest answers: longer than an order takes to come
			return vm, nil
		}
		if err := a.keeper.Drop(ctx, err.Error()); err != nil {
			return nil, err
		}
		link.State, link.Loaded = "", nil
	}
	a.say(m, "booted")
	return driver.Start(ctx, m.Dir, m.Spec, link)
}

// say notes how the VM came up, for the test.
func (a *standInAgent) say(m *machine.Machine, how string) {
	_ = os.WriteFile(filepath.Join(string(m.Dir), "came-up"), []byte(how), 0o600)
}

// sleep saves the VM's memory. For a stop that is the end; otherwise it waits for the order to resume.
func (a *standInAgent) sleep(ctx context.Context, vm hostagent.VM, order string) (hostagent.VM, error) {
	a.set(hostagent.Suspending, "", "")
	suspender, ok := vm.(hostagent.Suspender)
	if !ok {
		return nil, errors.New("this VM's memory cannot be saved")
	}
	file, err := a.keeper.New(ctx)
	if err == nil {
		err = suspender.Suspend(ctx, file, a.keeper.Still)
	}
	if err == nil {
		err = a.keeper.Commit(ctx, order == "suspend", nil)
	}
	if order == "stop" {
		a.set(hostagent.Stopped, "", "")
		return nil, err
	}
	a.set(hostagent.Suspended, "", "")
	a.done <- err
	for {
		switch <-a.orders {
		case "suspend":
			a.done <- nil
		case "kill":
			a.set(hostagent.Stopped, "", "")
			return nil, a.keeper.Drop(ctx, "it was killed")
		case "stop":
			next, err := a.wake()
			if err != nil {
				return nil, err
			}
			return a.sleep(ctx, next, "stop")
		case "resume":
			a.set(hostagent.Resuming, "", "")
			next, err := a.wake()
			a.set(hostagent.Running, "", "")
			a.done <- err
			return next, err
		}
	}
}

// cameUp is how the machine came up last.
func (h *home) cameUp(m *machine.Machine, want string) {
	h.t.Helper()
	if how, err := os.ReadFile(filepath.Join(string(m.Dir), "came-up")); err != nil || string(how) != want {
		h.t.Errorf("the machine was %s, not %s (%v)", how, want, err)
	}
}

func (h *home) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%v%s", err, details(err))
	}
}

// sleepingHome has agents that save memory.
func sleepingHome(t *testing.T) (*home, *machine.Machine) {
	t.Helper()
	h := newHome(t)
	t.Setenv(agentVariable, agentSleeps)
	m := h.create("m")
	h.mark(m)
	h.start(m)
	h.cameUp(m, "booted")
	return h, m
}

func TestSuspendAndResume(t *testing.T) {
	h, m := sleepingHome(t)
	for range 2 {
		h.must(m.Suspend(h.ctx(), nil))
		h.phase(m, machine.PhaseSuspended)
		if n := len(h.processes("-nodefaults")); n != 0 {
			t.Errorf("%d VMs run", n)
		}
		var off *machine.NotRunningError
		if _, err := m.SSHTarget(h.ctx()); !errors.As(err, &off) || !strings.Contains(off.Hint(), "dev machine resume m") {
			t.Errorf("SSHTarget of a suspended machine: %v", err)
		}
		h.must(m.Suspend(h.ctx(), nil))
		h.must(m.Resume(h.ctx(), nil))
		h.phase(m, machine.PhaseRunning)
		h.cameUp(m, "restored")
	}
	h.must(m.Suspend(h.ctx(), nil))
	var refused *machine.ChangeError
	if _, err := m.Edit(h.ctx(), func(s *machine.Spec) error { s.CPUs++; return nil }); !errors.As(err, &refused) {
		t.Errorf("Edit of a suspended machine: %v", err)
	}
	h.must(m.Start(h.ctx(), nil))
	h.phase(m, machine.PhaseRunning)
	h.marked(m)
}

// TestSuspendedWithoutAgent: after the computer was off, a suspended machine is still one.
func TestSuspendedWithoutAgent(t *testing.T) {
	h, m := sleepingHome(t)
	for name, c := range map[string]struct {
		do      func() error
		phase   machine.Phase
		then    string
		restart bool
	}{
		"resume": {func() error { return m.Resume(h.ctx(), nil) }, machine.PhaseRunning, "restored", false},
		"stop":   {func() error { return m.Stop(h.ctx(), machine.StopOptions{}, nil) }, machine.PhaseStopped, "restored", true},
		"cold":   {func() error { return m.Stop(h.ctx(), machine.StopOptions{Cold: true}, nil) }, machine.PhaseStopped, "booted", true},
		"kill":   {func() error { return m.Kill(h.ctx(), nil) }, machine.PhaseStopped, "booted", true},
	} {
		h.must(m.Suspend(h.ctx(), nil))
		for _, p := range h.processes("stand-in-agent") {
			h.must(p.Kill(context.Background()))
		}
		h.await("the agent's end", func() bool { return len(h.processes("stand-in-agent")) == 0 })
		h.phase(m, machine.PhaseSuspended)
		h.must(c.do())
		h.phase(m, c.phase)
		if _, err := os.Stat(filepath.Join(string(m.Dir), "broken-off")); err == nil {
			t.Errorf("%s: its start was broken off, so that its containers could not be stopped", name)
		}
		if c.restart {
			h.must(m.Start(h.ctx(), nil))
		}
		t.Log(name)
		h.cameUp(m, c.then)
		h.marked(m)
	}
}

// TestStopLeavesMemory: the next start restores it, unless something has changed.
func TestStopLeavesMemory(t *testing.T) {
	h, m := sleepingHome(t)
	for name, c := range map[string]struct {
		change func()
		then   string
	}{
		"nothing":  {func() {}, "restored"},
		"the disk": {func() { h.mark(m) }, "booted"},
		"settings": {func() {
			_, err := m.Edit(h.ctx(), func(s *machine.Spec) error { s.CPUs++; return nil })
			h.must(err)
		}, "booted"},
		"a label": {func() {
			_, err := m.Edit(h.ctx(), func(s *machine.Spec) error { s.Labels = map[string]string{"a": "b"}; return nil })
			h.must(err)
		}, "restored"},
		"torn": {func() {
			files, _ := filepath.Glob(filepath.Join(m.Dir.Memory(), "*.mem"))
			for _, f := range files {
				h.must(os.Truncate(f, 100))
			}
		}, "booted"},
		"a cold stop": {func() { h.must(m.Stop(h.ctx(), machine.StopOptions{Cold: true}, nil)) }, "booted"},
	} {
		h.must(m.Stop(h.ctx(), machine.StopOptions{}, nil))
		h.phase(m, machine.PhaseStopped)
		c.change()
		h.must(m.Start(h.ctx(), nil))
		t.Log(name)
		h.cameUp(m, c.then)
		h.marked(m)
	}
	h.must(m.Restart(h.ctx(), machine.StopOptions{}, nil))
}

// TestSuspendIsRefused: an agent that cannot says why, and the machine goes on.
func TestSuspendIsRefused(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	var off *machine.NotRunningError
	if err := m.Suspend(h.ctx(), nil); !errors.As(err, &off) {
		t.Errorf("Suspend of a stopped machine: %v", err)
	}
	h.start(m)
	var refused *machine.SuspendError
	if err := m.Suspend(h.ctx(), nil); !errors.As(err, &refused) || refused.Err.Error() != "this agent saves no memory" {
		t.Errorf("Suspend: %v", err)
	}
	h.phase(m, machine.PhaseRunning)
}

// TestAgentDiesWhileSleeping: the error says what became of the machine, not that it goes on, and the next start works.
func TestAgentDiesWhileSleeping(t *testing.T) {
	h, m := sleepingHome(t)
	h.must(os.WriteFile(diesAt(m, "suspend"), nil, 0o600))
	var ended *machine.SuspendError
	if err := m.Suspend(h.ctx(), nil); !errors.As(err, &ended) || !ended.Ended || !strings.Contains(ended.Hint(), "dev machine start m") {
		t.Errorf("Suspend: %v", err)
	}
	h.start(m)
	h.must(m.Suspend(h.ctx(), nil))
	h.must(os.WriteFile(diesAt(m, "resume"), nil, 0o600))
	if err := m.Resume(h.ctx(), nil); err == nil || !strings.Contains(err.Error(), "its host agent ended") {
		t.Errorf("Resume: %v", err)
	}
	h.start(m)
	h.marked(m)
	h.end()
	h.clean()
}

// TestKilledWhileSleeping kills the command, the agent, or the VM at many moments of suspend and resume: the next start works, nothing is lost, nothing stays.
func TestKilledWhileSleeping(t *testing.T) {
	for _, command := range []string{"suspend", "resume", "stop"} {
		for _, victim := range []string{"", "stand-in-agent", "-nodefaults"} {
			for _, after := range moments(t)[1:] {
				h, m := sleepingHome(t)
				if command == "resume" {
					h.must(m.Suspend(h.ctx(), nil))
				}
				if victim == "" {
					h.killAt(after, command, "m")
				} else {
					h.killBeside(after, victim, command)
				}
				h.await("a machine that runs", func() bool {
					return m.Start(h.ctx(), nil) == nil && m.Status(h.ctx()).Phase == machine.PhaseRunning
				})
				h.marked(m)
				h.end()
				h.clean()
			}
		}
	}
}

// killBeside runs a command, and kills another process of the machine meanwhile.
func (h *home) killBeside(after time.Duration, victim, command string) {
	h.t.Helper()
	c := h.cli(command, "m")
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(after + time.Duration(rand.IntN(20))*time.Millisecond)
	for _, p := range h.processes(victim) {
		_ = p.Kill(context.Background()) // it may have ended
	}
	_ = c.Wait() // it may fail
}

// killAgents ends the machine's agents, as this computer's end does.
func (h *home) killAgents() {
	h.t.Helper()
	h.killAll(h.agents())
	h.await("the agent's end", func() bool { return len(h.agents()) == 0 })
}

// TestSuspendedIsSnapshotted: whoever saves a snapshot of a suspended machine, or begins to restore one and does not get far, leaves its memory as good as it is.
func TestSuspendedIsSnapshotted(t *testing.T) {
	for name, agent := range map[string]bool{"with its agent": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			h, m := sleepingHome(t)
			h.must(m.Suspend(h.ctx(), nil))
			if !agent {
				h.killAgents()
			}
			snap, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: "snap"}, nil)
			h.must(err)
			h.phase(m, machine.PhaseSuspended)
			if _, err := m.VerifySnapshot(h.ctx(), snap.Name); err != nil {
				t.Error(err)
			}
			if !agent {
				h.must(machine.PrepareRestore(h.ctx(), m, snap.Name, "safety"))
				h.phase(m, machine.PhaseSuspended)
			}
			h.must(m.Resume(h.ctx(), nil))
			h.cameUp(m, "restored")
			h.marked(m)
		})
	}
}
