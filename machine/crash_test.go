// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/process"
)

// cli is a command line in a process of its own.
func (h *home) cli(args ...string) *exec.Cmd {
	h.t.Helper()
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	return exec.Command(program, append([]string{"stand-in-cli", h.dir}, args...)...)
}

// killAt runs a command and kills it after a while.
func (h *home) killAt(after time.Duration, args ...string) {
	h.t.Helper()
	c := h.cli(args...)
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	select {
	case <-ended:
	case <-time.After(after):
		_ = c.Process.Kill()
		<-ended
	}
}

// mark writes into the data disk, and marked reads it again: it is what must not be lost.
func (h *home) mark(m *machine.Machine) {
	h.t.Helper()
	f, err := os.OpenFile(m.Dir.DataDisk(), os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("the user's data"), 4096); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) marked(m *machine.Machine) {
	h.t.Helper()
	data := make([]byte, 15)
	f, err := os.Open(m.Dir.DataDisk())
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(data, 4096); err != nil || string(data) != "the user's data" {
		h.t.Errorf("the data disk has %q, %v", data, err)
	}
}

// moments are the times after which a command is killed: from its first instruction to beyond its end. DEV_TEST_CRASH=1 asks for many.
func moments(t *testing.T) []time.Duration {
	t.Helper()
	list := []int{10, 40, 120}
	if os.Getenv("DEV_TEST_CRASH") != "" {
		list = []int{1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300}
	}
	var moments []time.Duration
	for _, n := range list {
		moments = append(moments, time.Duration(n)*time.Millisecond)
	}
	return moments
}

// TestKillCommand kills commands at many moments: the next command works, nothing is lost, no process is left.
func TestKillCommand(t *testing.T) {
	for _, command := range []string{"create", "start", "stop", "kill", "restart", "rm"} {
		t.Run(command, func(t *testing.T) {
			for _, after := range moments(t) {
				h := newHome(t)
				if command != "create" {
					m := h.create("m")
					h.mark(m)
					if command != "start" {
						h.start(m)
					}
				}
				h.killAt(after, command, "m")
				h.goesOn(command)
				h.end()
				h.clean()
			}
		})
	}
}

// goesOn checks that a machine is whole or absent after a command was killed, and that everything works with it.
func (h *home) goesOn(command string) {
	h.t.Helper()
	if _, err := h.store.List(); err != nil {
		h.t.Fatalf("List: %v", err)
	}
	m, err := h.store.Get("m")
	var missing *machine.NotFoundError
	if errors.As(err, &missing) && (command == "create" || command == "rm") {
		m = h.create("m")
	} else {
		if err != nil {
			h.t.Fatalf("Get: %v", err)
		}
		if len(m.Problems) > 0 {
			h.t.Fatalf("the machine is not whole: %v", m.Problems)
		}
		if command != "create" {
			h.marked(m)
		}
	}
	// An order that the killed command sent may reach the agent only now, and end the machine once more.
	h.await("a machine that runs", func() bool {
		err := m.Start(h.ctx(), nil)
		if err != nil && (command == "create" || command == "start") {
			h.t.Fatalf("start: %v%s", err, details(err))
		}
		return err == nil && m.Status(h.ctx()).Phase == machine.PhaseRunning
	})
	if a, v := len(h.agents()), len(h.vms()); a > 1 || v > 1 {
		h.t.Errorf("%d agents and %d VMs", a, v)
	}
	if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
		h.t.Fatalf("stop: %v", err)
	}
	h.noProcess()
}

// TestKillAgent kills the agent at many moments of a start, while it serves, and in a stop.
func TestKillAgent(t *testing.T) {
	for _, next := range []string{"start", "stop", "kill", "restart", "rm"} {
		t.Run("then "+next, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			h.mark(m)
			h.start(m)
			h.killAll(h.agents())
			status := h.phase(m, machine.PhaseBroken)
			if text := fmt.Sprint(status.Problems); !strings.Contains(text, "died and left the VM running") {
				t.Errorf("problems: %s", text)
			}
			if out, err := h.cli(next, "m").CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", next, err, out)
			}
			switch next {
			case "start", "restart":
				h.phase(m, machine.PhaseRunning)
				if v := len(h.vms()); v != 1 {
					t.Errorf("%d VMs", v)
				}
				h.marked(m)
			case "rm":
				h.noProcess()
			default:
				h.phase(m, machine.PhaseStopped)
				h.noProcess()
				h.marked(m)
			}
		})
	}
	t.Run("in a start", func(t *testing.T) {
		for _, after := range moments(t) {
			h := newHome(t)
			t.Setenv(agentVariable, agentSlow)
			m := h.create("m")
			h.mark(m)
			c := h.cli("start", "m")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			h.awaitProcess("stand-in-agent")
			time.Sleep(after)
			h.killAll(h.agents())
			_ = c.Wait()
			h.goesOn("start")
			h.end()
		}
	})
}

func (h *home) killAll(list []process.Process) {
	h.t.Helper()
	for _, p := range list {
		if err := p.Kill(h.ctx()); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *home) awaitProcess(kind string) {
	h.t.Helper()
	h.await("a process "+kind, func() bool { return len(h.processes(kind)) > 0 })
}

func (h *home) await(what string, there func() bool) {
	h.t.Helper()
	ctx := h.ctx()
	for !there() {
		if ctx.Err() != nil {
			h.t.Fatalf("%s: not within %s", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestKillVM: a VM that is killed is a machine that is stopped, and starts again.
func TestKillVM(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	h.mark(m)
	for range 3 {
		h.start(m)
		h.killAll(h.vms())
		h.await("the agent's end", func() bool { return m.Status(h.ctx()).Phase == machine.PhaseStopped })
		h.noProcess()
	}
	h.start(m)
	h.marked(m)
}

// TestKillBoth: nothing but stale sockets is left, and a lock that no process holds.
func TestKillBoth(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	h.start(m)
	h.killAll(h.agents())
	h.killAll(h.vms())
	if left, err := filepath.Glob(filepath.Join(string(m.Dir), "*.sock")); err != nil || len(left) == 0 {
		t.Fatalf("no stale sockets: the test tests nothing (%v)", err)
	}
	h.phase(m, machine.PhaseStopped)
	h.start(m)
	h.phase(m, machine.PhaseRunning)
}

// TestHelpersEnd: what serves a share and lost its agent before it had a VM would wait for ever; another machine's is left alone.
func TestHelpersEnd(t *testing.T) {
	h := newHome(t)
	m, n := h.create("m"), h.create("m2")
	plant := func(m *machine.Machine) <-chan struct{} {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := &exec.Cmd{Path: program, Args: []string{"/usr/lib/virtiofsd", "--socket-path=" + filepath.Join(string(m.Dir), "fs0.sock")}}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Wait() }()
		t.Cleanup(func() { _ = c.Process.Kill(); <-ended })
		return ended
	}
	ended, other := plant(m), plant(n)
	h.awaitProcess(filepath.Join(string(n.Dir), "fs0.sock"))
	h.start(m)
	select {
	case <-ended:
	default:
		t.Error("a helper without an agent is left")
	}
	select {
	case <-other:
		t.Error("another machine's helper was ended")
	default:
	}
}

// TestHungVM: a guest that does not heed the power button is ended by force, whoever finds it.
func TestHungVM(t *testing.T) {
	h := newHome(t)
	t.Setenv(drivertest.StandInVariable, drivertest.StandInHung)
	m := h.create("m")
	h.start(m)
	h.killAll(h.agents())
	if err := m.Stop(h.ctx(), machine.StopOptions{Timeout: 100 * time.Millisecond}, nil); err != nil {
		t.Fatal(err)
	}
	h.noProcess()
}

// TestBadAgents: an agent that hangs is told from one that starts, and is replaced.
func TestBadAgents(t *testing.T) {
	t.Run("hung", func(t *testing.T) {
		h := newHome(t)
		m := h.create("m")
		h.plant(m, agentHung)
		h.await("a socket", func() bool { _, err := os.Stat(m.Dir.Control()); return err == nil })
		ctx, cancel := context.WithTimeout(h.ctx(), machine.StatusPatience)
		defer cancel()
		status := m.Status(ctx)
		if status.Phase != machine.PhaseBroken || !strings.Contains(fmt.Sprint(status.Problems), "does not answer") {
			t.Errorf("%s: %v", status.Phase, status.Problems)
		}
		h.start(m)
		h.phase(m, machine.PhaseRunning)
		if n := len(h.agents()); n != 1 {
			t.Errorf("%d agents", n)
		}
	})
	t.Run("silent", func(t *testing.T) {
		h := newHome(t)
		m := h.create("m")
		h.plant(m, agentSilent)
		h.phase(m, machine.PhaseStarting)
		if err := m.Kill(h.ctx(), nil); err != nil {
			t.Fatal(err)
		}
		h.noProcess()
		h.start(m)
	})
	t.Run("stuck", func(t *testing.T) {
		h := newHome(t)
		m := h.create("m")
		t.Setenv(agentVariable, agentStuck)
		h.start(m)
		if err := m.Kill(h.ctx(), nil); err != nil {
			t.Fatal(err)
		}
		h.noProcess()
	})
}

// plant starts an agent that behaves so, by itself, and waits until it holds the run lock.
func (h *home) plant(m *machine.Machine, how string) {
	h.t.Helper()
	c := exec.Command(h.store.Agent[0], append(h.store.Agent[1:], m.Name)...)
	c.Env = append(os.Environ(), agentVariable+"="+how)
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = c.Wait() }()
	h.await("the run lock", func() bool { return m.Status(h.ctx()).Phase != machine.PhaseStopped })
}

// TestOtherProcessesLive: what is not the machine's is not killed, though its number was the VM's once, or its machine has the same name.
func TestOtherProcessesLive(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs sleep")
	}
	// A process whose number stands in files, and a namesake in another home.
	other := exec.Command(sleep, "300")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = other.Wait() }()
	t.Cleanup(func() { _ = other.Process.Kill(); <-gone })
	// Files that name its process, as an older program may have left them.
	for _, name := range []string{"qemu.pid", "agent.pid", "run.lock"} {
		if err := os.WriteFile(filepath.Join(string(m.Dir), name), []byte(strconv.Itoa(other.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	namesakes := newHome(t)
	namesake := namesakes.create("m")
	namesakes.start(namesake)
	h.phase(m, machine.PhaseStopped)
	for _, do := range []func() error{
		func() error { return m.Kill(h.ctx(), nil) },
		func() error { return m.Start(h.ctx(), nil) },
		func() error { return m.Remove(h.ctx(), machine.RemoveOptions{Force: true}, nil) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-gone:
		t.Error("a process that is not the machine's was killed")
	default:
	}
	namesakes.phase(namesake, machine.PhaseRunning)
}

// TestRaces lets commands on one machine run at once, in processes of their own: each ends, and what is left is one of the states they lead to.
func TestRaces(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	t.Run("starts", func(t *testing.T) {
		h.race(6, func(int) []string { return []string{"start", "m"} }, true)
		h.phase(m, machine.PhaseRunning)
		if a, v := len(h.agents()), len(h.vms()); a != 1 || v != 1 {
			t.Errorf("%d agents and %d VMs", a, v)
		}
	})
	t.Run("stops", func(t *testing.T) {
		h.race(6, func(int) []string { return []string{"stop", "m"} }, true)
		h.phase(m, machine.PhaseStopped)
		h.noProcess()
	})
	t.Run("all", func(t *testing.T) {
		commands := []string{"start", "stop", "kill", "restart"}
		h.race(8, func(i int) []string { return []string{commands[i%len(commands)], "m"} }, false)
		h.start(m)
		h.phase(m, machine.PhaseRunning)
		h.marks(m)
	})
	t.Run("creates", func(t *testing.T) {
		if made := h.race(4, func(int) []string { return []string{"create", "n"} }, false); made != 1 {
			t.Errorf("%d of 4 made the same machine", made)
		}
	})
	t.Run("removals and starts", func(t *testing.T) {
		h.race(6, func(i int) []string { return []string{[]string{"rm", "start"}[i%2], "n"} }, false)
		m, err := h.store.Get("n")
		var missing *machine.NotFoundError
		if !errors.As(err, &missing) {
			t.Errorf("after removals: %v, %v", m, err)
		}
	})
}

// marks is for machines that went through anything: the disk can be used.
func (h *home) marks(m *machine.Machine) {
	h.t.Helper()
	h.mark(m)
	h.marked(m)
}

// race runs commands at once and returns how many succeeded; all must, if so asked.
func (h *home) race(n int, command func(i int) []string, all bool) (succeeded int) {
	h.t.Helper()
	var wait sync.WaitGroup
	outputs := make([]bytes.Buffer, n)
	results := make([]error, n)
	for i := range n {
		wait.Go(func() {
			c := h.cli(command(i)...)
			c.Stdout, c.Stderr = &outputs[i], &outputs[i]
			results[i] = c.Run()
		})
	}
	wait.Wait()
	for i, err := range results {
		if err == nil {
			succeeded++
		} else if all {
			h.t.Errorf("%v: %v\n%s", command(i), err, outputs[i].String())
		}
	}
	return succeeded
}

// TestSweep: what a crash left of a machine goes with the next creation, and only what nobody is working on.
func TestSweep(t *testing.T) {
	h := newHome(t)
	h.create("a")
	for _, name := range []string{".tmp-b-0123456789", ".tmp-a-b-0123456789", ".tmp-odd"} {
		if err := os.MkdirAll(filepath.Join(h.store.Dir, name, "tls"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.create("c")
	left, err := filepath.Glob(filepath.Join(h.store.Dir, ".tmp-*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != ".tmp-odd" {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.Remove(filepath.Join(h.store.Dir, ".tmp-odd", "tls")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.store.Dir, ".tmp-odd")); err != nil {
		t.Fatal(err)
	}
}
