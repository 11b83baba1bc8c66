// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

const (
	// provePatience is how long a machine may take, once its engine answers, to be well: services settle, containers start.
	provePatience = 3 * time.Minute
	// provePause is how often it is asked.
	provePause = 500 * time.Millisecond
)

// fatal are the codes of problems with which a new image does not pass. Others (a port that is taken, a folder that is not there) are not the image's.
var fatal = []string{codeGuest, "guest-silent", "engine-silent", "link-lost", "failed"}

// codeGuest is the code of what the guest itself complains about, such as a full disk.
const codeGuest = "guest"

// ails says whether the guest complains.
func (m *Machine) ails(ctx context.Context) bool {
	problems, err := m.Agent().Health(ctx)
	return err == nil && slices.ContainsFunc(problems, func(p hostagent.Problem) bool { return p.Code == codeGuest })
}

// prove looks whether a machine that has just been started is well, and starts the containers that ran.
func (m *Machine) prove(ctx context.Context, j *journal, sink Sink) error {
	patience := provePatience
	if j.Patience > 0 {
		patience = j.Patience
	}
	if err := m.awaitHealth(ctx, patience, j.Ailing); err != nil {
		return err
	}
	return m.resume(ctx, j, sink)
}

// awaitHealth waits until the agent, the guest and the engine have nothing to complain about.
func (m *Machine) awaitHealth(ctx context.Context, patience time.Duration, ailing bool) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(provePause)
	defer tick.Stop()
	var last error
	for {
		problems, err := m.Agent().Health(wait)
		if err == nil {
			err = complaint(problems, ailing)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, hostagent.ErrNotRunning):
			return fmt.Errorf("the machine ended: %w", err)
		case last == nil || wait.Err() == nil:
			last = err
		}
		select {
		case <-wait.Done():
			return fmt.Errorf("it is not well: %w", last)
		case <-tick.C:
		}
	}
}

// complaint is what in the agent's problems an image is to blame for. The guest's own problems are not told of a machine that had some before.
func complaint(problems []hostagent.Problem, ailing bool) error {
	var texts []string
	for _, p := range problems {
		if ailing && p.Code == codeGuest {
			continue
		}
		if slices.Contains(fatal, p.Code) {
			texts = append(texts, p.Text)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// resume starts the containers that ran.
func (m *Machine) resume(ctx context.Context, j *journal, sink Sink) error {
	if m.store.Containers == nil || len(j.Containers) == 0 {
		return nil
	}
	status := m.Status(ctx)
	if !status.Phase.Up() {
		return fmt.Errorf("it is %s", status.Phase)
	}
	wait, cancel := context.WithTimeout(ctx, provePatience)
	defer cancel()
	warnings, err := m.store.Containers.Resume(wait, status.Endpoint, j.Containers)
	for _, w := range warnings {
		sink.send(Event{Machine: m.Name, Warning: true, Text: w})
	}
	if err != nil {
		return fmt.Errorf("start the containers that ran: %w", err)
	}
	return nil
}

// startAndResume starts the machine and its containers without asking more of it than that it starts.
func (m *Machine) startAndResume(ctx context.Context, j *journal, sink Sink) error {
	if err := m.startLocked(ctx, sink); err != nil {
		return err
	}
	if err := m.resume(ctx, j, sink); err != nil {
		sink.send(Event{Machine: m.Name, Warning: true, Text: err.Error()})
	}
	return nil
}

// withLines adds to an error what console and log said last, unless it has that.
func (m *Machine) withLines(err error) error {
	var failed *StartError
	if errors.As(err, &failed) {
		return err
	}
	console, log := m.said()
	return &StartError{Name: m.Name, Err: err, LogFile: m.Dir.AgentLog(), Console: console, Log: log}
}
