// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/process"
)

// vm is a QEMU that this process started.
type vm struct {
	cmd       *exec.Cmd
	dir       machine.Dir
	monitor   *monitor
	done      chan struct{}
	resumed   chan struct{}
	stalled   chan error   // why QEMU has stopped the guest
	memory    *guestMemory // nil where QEMU alone has it
	migration migration
	slots     *slots

	mu       sync.Mutex
	killed   bool
	quitting bool
	err      error
}

// migration tells of the end of the one that was begun last.
type migration struct {
	mu   sync.Mutex
	done chan string
}

// begin is called before a migration is; the channel gets its outcome.
func (m *migration) begin() <-chan string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = make(chan string, 1)
	return m.done
}

func (m *migration) tell(status string) {
	if status != "completed" && status != "failed" && status != "cancelled" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done != nil {
		m.done <- status
		m.done = nil
	}
}

var _ hostagent.VM = (*vm)(nil)

// launching is what a QEMU is started with. The memory is the VM's from then on.
type launching struct {
	program string
	args    []string
	dir     machine.Dir
	memory  *guestMemory
	shares  int // places for them
}

// launch starts QEMU and waits until its monitor answers. On any error no process is left.
func launch(ctx context.Context, l launching, log *slog.Logger) (*vm, error) {
	dir := l.dir
	if err := os.Remove(dir.Monitor()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove a stale monitor socket: %w", err)
	}
	cmd := exec.Command(l.program, l.args...) // not with ctx: the VM outlives it
	cmd.Dir, cmd.SysProcAttr = string(dir), ownGroup()
	if l.memory != nil {
		cmd.ExtraFiles = []*os.File{l.memory.File}
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	v := &vm{cmd: cmd, dir: dir, done: make(chan struct{}), resumed: make(chan struct{}, 1), stalled: make(chan error, 1), memory: l.memory, slots: newSlots(l.shares)}
	go v.wait(stderr, log.With("program", "qemu"))
	if err := v.connect(ctx, dir, log); err != nil {
		return nil, errors.Join(err, v.Kill(context.WithoutCancel(ctx)))
	}
	return v, nil
}

// wait copies what QEMU complains about to the log until it ends, and is the one to wait for it.
func (v *vm) wait(stderr io.Reader, log *slog.Logger) {
	defer close(v.done)
	last := ""
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		last = lines.Text()
		log.Warn(last)
	}
	_, _ = io.Copy(io.Discard, stderr) // a line that is too long must not block QEMU
	err := endOf(v.cmd.Wait())
	_ = v.memory.Close() // there is nothing to lose in it
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.killed:
		v.err = errKilled
	case v.quitting: // its memory is saved
	case err != nil && last != "":
		v.err = fmt.Errorf("QEMU ended: %w: %s", err, last)
	case err != nil:
		v.err = fmt.Errorf("QEMU ended: %w", err)
	}
}

// endOf marks the end of a process that crashed.
func endOf(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && crashed(exit.ProcessState) {
		return fmt.Errorf("%w: %w", hostagent.ErrCrashed, err)
	}
	return err
}

// errKilled is the end of a VM that Kill ended.
var errKilled = errors.New("the VM was killed")

// connect opens the monitor as soon as QEMU serves it.
func (v *vm) connect(ctx context.Context, dir machine.Dir, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := dialMonitor(ctx, dir.Monitor(), v.event(log))
		if err == nil {
			v.monitor = m
			return nil
		}
		select {
		case <-v.done:
			return v.startError()
		case <-ctx.Done():
			return fmt.Errorf("wait for QEMU's monitor: %w", err)
		case <-tick.C:
		}
	}
}

// startError is Err for a VM that was to run: an end without a complaint is one, too.
func (v *vm) startError() error {
	if err := v.Err(); err != nil {
		return err
	}
	return errors.New("QEMU ended without a word")
}

// event notes what the monitor tells.
func (v *vm) event(log *slog.Logger) func(name string, data json.RawMessage) {
	return func(name string, data json.RawMessage) {
		log.Debug("QEMU event", "event", name, "data", string(data))
		switch name {
		case "RESUME":
			select {
			case v.resumed <- struct{}{}:
			default: // nobody has taken the last one yet
			}
		case "MIGRATION":
			v.migration.tell(migrationEvent(data))
		case "BLOCK_IO_ERROR":
			v.stall(data)
		case "DEVICE_DELETED":
			v.slots.left(data)
		}
	}
}

// endWait is how long a QEMU may take to end that has closed its monitor.
const endWait = 10 * time.Second

// why is what an error comes from: where QEMU has ended, its end rather than what could not be told to it.
func (v *vm) why(ctx context.Context, err error) error {
	if !errors.Is(err, errMonitorGone) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	select {
	case <-v.done:
		return v.startError()
	case <-ctx.Done():
		return err
	}
}

func (v *vm) Done() <-chan struct{} { return v.done }

// Resumed tells that the VM runs again after a pause.
func (v *vm) Resumed() <-chan struct{} { return v.resumed }

func (v *vm) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *vm) PID() int { return v.cmd.Process.Pid }

func (v *vm) PowerOff(ctx context.Context) error { return v.monitor.powerDown(ctx) }

func (v *vm) Kill(ctx context.Context) error {
	v.mu.Lock()
	v.killed = true
	v.mu.Unlock()
	if v.monitor != nil {
		v.monitor.close()
	}
	if err := v.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill QEMU: %w", err)
	}
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of QEMU: %w", ctx.Err())
	}
}

// RunState is QEMU's word for what the VM does: running, paused, shutdown, …
func (v *vm) RunState(ctx context.Context) (string, error) { return v.monitor.status(ctx) }

// Balloon asks the guest to keep to so many bytes of its memory.
func (v *vm) Balloon(ctx context.Context, bytes int64) error { return v.monitor.balloon(ctx, bytes) }

// found is a QEMU that another process started.
type found struct {
	processes []process.Process
	dir       machine.Dir
	log       *slog.Logger
	done      chan struct{}
}

var _ hostagent.VM = (*found)(nil)

// adopt watches processes that are not this one's children.
func adopt(list []process.Process, dir machine.Dir, log *slog.Logger) *found {
	f := &found{processes: list, dir: dir, log: log, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for _, p := range list {
			_ = p.Await(context.Background()) // ends with the process; nothing else can end it
		}
	}()
	return f
}

func (f *found) Done() <-chan struct{} { return f.done }

// Err is not known of a process that is not a child.
func (f *found) Err() error { return nil }

func (f *found) PID() int { return f.processes[0].PID }

// PowerOff presses the power button at the monitor, which takes one client at a time: the one that died is gone. A guest that it left standing still, as its
// memory was being saved, goes on first; one that was being restored has not run yet and has nothing to end.
func (f *found) PowerOff(ctx context.Context) error {
	m, err := dialMonitor(ctx, f.dir.Monitor(), func(string, json.RawMessage) {})
	if err != nil {
		return err
	}
	defer m.close()
	state, err := m.status(ctx)
	switch {
	case err != nil:
		return err
	case state == "inmigrate" || state == "prelaunch":
		return m.call(ctx, "quit", nil, nil)
	case state == "paused" || state == "postmigrate":
		if err := m.call(ctx, "cont", nil, nil); err != nil {
			return err
		}
	}
	return m.powerDown(ctx)
}

func (f *found) Kill(ctx context.Context) error {
	for _, p := range f.processes {
		if err := p.Kill(ctx); err != nil {
			return err
		}
	}
	return nil
}
