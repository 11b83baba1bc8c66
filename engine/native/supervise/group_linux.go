// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Group is a set of supervised programs. Its methods may be called by several
// goroutines.
type Group struct {
	log        *slog.Logger
	spawn      chan func()   // work for the spawner; closed by Close
	spawned    chan struct{} // closed when the spawner has ended
	close      sync.Once
	components []*component

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever a state changes
}

// Start starts all programs at once and returns; WaitReady waits for them.
// Notify sockets are made in runDir, which must exist. Close the group to stop
// what still runs and free what it holds.
func Start(log *slog.Logger, runDir string, programs ...Program) (*Group, error) {
	g := &Group{log: log, spawn: make(chan func()), spawned: make(chan struct{}), changed: make(chan struct{})}
	go g.spawner()
	for _, p := range programs {
		c, err := newComponent(g, p, runDir)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("supervise %q: %w", p.Name, err)
		}
		g.components = append(g.components, c)
	}
	for _, c := range g.components {
		c.running = true
		go c.loop()
	}
	return g, nil
}

// spawner starts processes from one thread that lives as long as the group:
// the signal that the kernel sends to a child at its parent's death is tied to
// the thread that made it.
func (g *Group) spawner() {
	defer close(g.spawned)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for f := range g.spawn {
		f()
	}
}

// start runs cmd.Start on the spawner's thread.
func (g *Group) start(cmd *exec.Cmd, atDeath syscall.Signal) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: cmp.Or(atDeath, syscall.SIGTERM)}
	result := make(chan error, 1)
	g.spawn <- func() { result <- cmd.Start() }
	return <-result
}

// notifyAll wakes everybody who waits for a change of state.
func (g *Group) notifyAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of a state.
func (g *Group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// States are the programs' states, in the order given to Start.
func (g *Group) States() []State {
	states := make([]State, 0, len(g.components))
	for _, c := range g.components {
		states = append(states, c.State())
	}
	return states
}

// WaitReady waits until all programs are ready. It fails with an *ExitedError
// as soon as one ends before that, and with a *NotReadyError when ctx ends.
func (g *Group) WaitReady(ctx context.Context) error {
	for {
		changed := g.Changed()
		ready := 0
		for _, s := range g.States() {
			if s.Phase == Running {
				ready++
			}
			if s.LastExit != nil {
				return &ExitedError{Name: s.Name, Exit: *s.LastExit}
			}
		}
		if ready == len(g.components) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return g.notReady(context.Cause(ctx))
		}
	}
}

// notReady says who is not ready, and what they said last.
func (g *Group) notReady(cause error) error {
	e := &NotReadyError{Err: cause}
	for _, c := range g.components {
		if c.State().Phase != Running {
			e.Names = append(e.Names, c.program.Name)
			e.Log = append(e.Log, c.program.Log.Tail(exitLines, 0)...)
		}
	}
	return e
}

// component finds one by name.
func (g *Group) component(name string) (*component, error) {
	for _, c := range g.components {
		if c.program.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no program %q is supervised", name)
}

// Reload sends SIGHUP to a program and waits until it says that it is ready
// again.
func (g *Group) Reload(ctx context.Context, name string) error {
	c, err := g.component(name)
	if err != nil {
		return err
	}
	ready := c.nextReady()
	if err := c.signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload %s: %w", name, err)
	}
	select {
	case <-ready:
		return nil
	case <-c.done:
		return fmt.Errorf("reload %s: it is stopped", name)
	case <-ctx.Done():
		return fmt.Errorf("reload %s: %w", name, context.Cause(ctx))
	}
}

// Stop ends one program for good: SIGTERM, its grace, SIGKILL. It returns when
// the process is gone; when ctx ends first it is killed at once.
func (g *Group) Stop(ctx context.Context, name string) error {
	c, err := g.component(name)
	if err != nil {
		return err
	}
	c.end(ctx)
	return nil
}

// Close ends all programs, the last given first, and waits for them.
func (g *Group) Close() {
	for i := len(g.components) - 1; i >= 0; i-- {
		g.components[i].end(context.Background())
		g.components[i].closeNotify()
	}
	g.close.Do(func() { close(g.spawn) })
	<-g.spawned
}

// environ is the environment of a program with its notify socket.
func environ(p Program, socket string) []string {
	return append(append([]string{}, p.Env...), "NOTIFY_SOCKET="+socket)
}

// isGone says that a process does not exist any more.
func isGone(err error) bool {
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH)
}
