// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package process finds and ends processes that this process did not start, by what they are.
//
// A process is known by its whole argument vector: the programs of a machine carry the machine's folder in it. A process id is how a process is reached,
// never why: it is looked at again before a kill, and on Linux held (pidfd) so that it cannot be given to another meanwhile.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Process is a process that was found.
type Process struct {
	PID  int
	Args []string
}

// pause is how often a process that was killed is looked for.
const pause = 10 * time.Millisecond

// Find returns this host's processes whose arguments match, without this process itself. Processes whose arguments cannot be read are other users'.
func Find(ctx context.Context, match func(args []string) bool) ([]Process, error) {
	pids, err := list()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Process
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if pid == os.Getpid() {
			continue
		}
		if args := arguments(pid); len(args) > 0 && match(args) {
			found = append(found, Process{PID: pid, Args: args})
		}
	}
	return found, nil
}

// Alive says whether the process is there, and still the same.
func (p Process) Alive() bool { return slices.Equal(arguments(p.PID), p.Args) }

// Kill ends the process at once and waits until it is gone. A process that is gone already is no error.
func (p Process) Kill(ctx context.Context) error {
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return nil // it is gone
	}
	defer handle.Release() //nolint:errcheck // nothing to lose
	if !p.Alive() {
		return nil
	}
	if err := handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return p.Await(ctx)
}

// Await waits until the process is gone.
func (p Process) Await(ctx context.Context) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of process %d: %w", p.PID, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
