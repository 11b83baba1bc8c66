// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	// lockPause is how often a held lock is tried again.
	lockPause = 20 * time.Millisecond
	// lockPatience is how long a command waits for another one on the same machine: as long as a slow start or stop takes.
	lockPatience = 10 * time.Minute
)

// lockMachine takes the lock of commands on a machine. The lock ends with unlock or with the process.
func (s *Store) lockMachine(ctx context.Context, name string, sink Sink) (unlock func(), err error) {
	path := s.dir(name).Lock()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of machines: %w", err)
	}
	l := flock.New(path)
	locked, err := l.TryLock()
	if err == nil && !locked {
		sink.say(name, "waiting for another command on this machine")
		wait, cancel := context.WithTimeout(ctx, lockPatience)
		defer cancel()
		_, err = l.TryLockContext(wait, lockPause)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, &BusyError{Name: name}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock machine %q: %w", name, err)
	}
	return func() {
		if err := l.Unlock(); err != nil {
			s.Logger.Warn("unlock machine", "machine", name, "error", err)
		}
	}, nil
}

// agentAlive says whether a process holds the run lock. It asks with a shared lock, which the agent outwaits.
func (d Dir) agentAlive() (bool, error) {
	if _, err := os.Stat(d.RunLock()); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	l := flock.New(d.RunLock(), flock.SetFlag(os.O_RDONLY))
	free, err := l.TryRLock()
	if err != nil {
		return false, fmt.Errorf("look at the run lock of machine %q: %w", d.Name(), err)
	}
	return !free, errors.Join(l.Unlock(), l.Close())
}

// agentRuns says whether the machine has an agent: a process that holds the run lock, or one that was started to take it and has not yet. Without
// the second, a command could see no agent while one is on its way, and that one would serve the machine after all.
func (m *Machine) agentRuns(ctx context.Context) (bool, error) {
	alive, err := m.Dir.agentAlive()
	if err != nil || alive {
		return alive, err
	}
	found, err := m.agentProcesses(ctx)
	return len(found) > 0, err
}

// awaitAgentEnd waits until the machine has no agent.
func (m *Machine) awaitAgentEnd(ctx context.Context) error {
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		runs, err := m.agentRuns(ctx)
		if err != nil || !runs {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tryLock takes the lock of commands on a machine if it is free now.
func (s *Store) tryLock(name string) (unlock func(), ok bool) {
	path := s.dir(name).Lock()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, false
	}
	l := flock.New(path)
	if locked, err := l.TryLock(); err != nil || !locked {
		return nil, false
	}
	return func() {
		if err := l.Unlock(); err != nil {
			s.Logger.Warn("unlock machine", "machine", name, "error", err)
		}
	}, true
}
