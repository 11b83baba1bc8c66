// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// baseEnv is what every program is started with.
var baseEnv = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "TERM=linux", "TMPDIR=/var/tmp"}

// table knows the children of PID 1. One goroutine waits for all processes: for ours, to tell their starter, and for orphans, which every process
// without a parent becomes. Nothing else in this program may wait.
type table struct {
	mu       sync.Mutex
	children map[int]chan unix.WaitStatus
}

// newTable starts reaping; it never ends, as PID 1 does not.
func newTable() *table {
	t := &table{children: map[int]chan unix.WaitStatus{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			t.reap()
		}
	}()
	return t
}

func (t *table) reap() {
	for {
		// Under the lock, so that a child cannot be reaped before start has noted it.
		t.mu.Lock()
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if pid <= 0 {
			t.mu.Unlock()
			if err == unix.EINTR {
				continue
			}
			return
		}
		done := t.children[pid]
		delete(t.children, pid)
		t.mu.Unlock()
		if done != nil {
			done <- status
		}
	}
}

// start starts a program in a process group of its own; the channel tells how it ended. Its output must go to files, not to Go readers.
func (t *table) start(cmd *exec.Cmd) (<-chan unix.WaitStatus, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan unix.WaitStatus, 1)
	t.children[cmd.Process.Pid] = done
	return done, nil
}

// service is a program that must run for as long as the machine does.
type service struct {
	name string
	args []string
	env  []string
	log  string // file; empty for the console
	// notify is where the program says that it is ready, in systemd's way; empty where it does not.
	notify string
	// grace is how long it may take to end.
	grace time.Duration
}

// Restarts of a crashed service: at once, then ever later; a service that ran for a minute begins anew.
const (
	firstBackoff = time.Second / 4
	maxBackoff   = 30 * time.Second
	steady       = time.Minute
)

// maxLog is the size in bytes at which a service's log is set aside when the service starts; one older log is kept.
const maxLog = 8 << 20

// run keeps a service running until ctx ends, and then ends it. It returns when the program is gone.
func (t *table) run(ctx context.Context, s service, r *record) {
	backoff := firstBackoff
	for {
		began := time.Now()
		status, err := t.once(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.line("start %s: %v", s.name, err)
		} else {
			r.line("%s ended unexpectedly (%s); starting it again in %v", s.name, describe(status), backoff)
		}
		r.change(func(st *proto.Status) {
			if st.Restarts == nil {
				st.Restarts = map[string]int{}
			}
			st.Restarts[s.name]++
		})
		if time.Since(began) > steady {
			backoff = firstBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(backoff*2, maxBackoff)
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return fmt.Sprintf("signal %d", s.Signal())
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}

// once runs a service until it ends, or ctx does: then it is asked, and after its grace made, to end.
func (t *table) once(ctx context.Context, s service) (unix.WaitStatus, error) {
	out, err := openLog(s.log)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(append([]string{}, baseEnv...), s.env...)
	if s.notify != "" {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+s.notify)
	}
	done, err := t.start(cmd)
	if err != nil {
		return 0, err
	}
	select {
	case status := <-done:
		return status, nil
	case <-ctx.Done():
	}
	_ = cmd.Process.Signal(unix.SIGTERM) // it may be gone already, which done tells
	select {
	case status := <-done:
		return status, nil
	case <-time.After(s.grace):
		_ = cmd.Process.Kill()
		return <-done, nil
	}
}

func openLog(name string) (*os.File, error) {
	if name == "" {
		return os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	}
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		_ = os.Rename(name, name+".1") // a log that grows on is better than none
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil { // a full or read-only disk must not keep the engine down
		return os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	}
	return f, nil
}
