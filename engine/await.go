// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

const (
	// failureLines is how many log lines explain a failure.
	failureLines = 10
	// explainTimeout bounds the gathering of an explanation after a failure or a deadline.
	explainTimeout = 5 * time.Second
)

// lookAgain is the pause before a container is looked at again when the engine could not be asked: it may be restarting.
const lookAgain = time.Second

// Await implements [compose.Engine]. It looks at the container once the event stream is open, and again at each of its events; never by
// the clock. All waits share one stream.
func (c *Client) Await(ctx context.Context, id string, cond compose.Condition) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	w, remove, err := c.watch.add(ctx, id)
	if err != nil {
		return c.explain(err)
	}
	defer remove()
	for {
		var again <-chan time.Time
		r, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		switch {
		case gone(err):
			return &compose.AwaitError{Container: shortID(id), Condition: cond, Gone: true}
		case err != nil && client.IsErrConnectionFailed(err) && ctx.Err() == nil:
			again = time.After(lookAgain)
		case err != nil:
			return c.explain(err)
		}
		switch judge(r.Container.State, cond) {
		case satisfied:
			return nil
		case impossible:
			return c.awaitError(ctx, &r.Container, cond)
		}
		select {
		case <-w.wake:
		case <-again:
		case <-ctx.Done():
			return interrupted(ctx, &r.Container)
		}
		if err := c.watch.broken(); err != nil {
			return fmt.Errorf("wait for container %q: %w", shortID(id), err)
		}
	}
}

// verdict is what a container's state means for a condition.
type verdict int

const (
	pending verdict = iota
	satisfied
	impossible
)

// judge decides whether a container satisfies a condition, may still do so, or cannot any more. A container that the engine is about to
// restart may still.
func judge(s *container.State, cond compose.Condition) verdict {
	if s == nil {
		return pending
	}
	switch compose.State(s.Status) {
	case compose.StateCreated:
		if s.Error != "" {
			return impossible
		}
	case compose.StateRunning:
		return judgeRunning(s, cond)
	case compose.StateExited, compose.StateDead:
		return judgeEnded(s, cond)
	}
	return pending
}

func judgeRunning(s *container.State, cond compose.Condition) verdict {
	switch cond {
	case compose.ConditionStarted:
		return satisfied
	case compose.ConditionCompleted:
		return pending
	}
	switch currentHealth(s) {
	case compose.HealthHealthy:
		return satisfied
	case compose.HealthUnhealthy:
		return impossible
	case compose.HealthStarting:
		return pending
	}
	if cond == compose.ConditionRunningOrHealthy {
		return satisfied
	}
	return impossible // there is no health check to wait for
}

func judgeEnded(s *container.State, cond compose.Condition) verdict {
	switch {
	case cond == compose.ConditionStarted:
		return satisfied
	case cond != compose.ConditionHealthy && s.ExitCode == 0 && compose.State(s.Status) == compose.StateExited:
		return satisfied
	}
	return impossible
}

// currentHealth is a running container's health; starting while what is recorded is from before its start.
func currentHealth(s *container.State) compose.Health {
	if s.Health == nil {
		return compose.HealthNone
	}
	if n := len(s.Health.Log); n > 0 && s.Health.Log[n-1] != nil && s.Health.Log[n-1].End.Before(parseTime(s.StartedAt)) {
		return compose.HealthStarting
	}
	return newHealth(s.Health.Status)
}

// parseTime reads one of the engine's times; zero where it has none.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// interrupted says what a container was like when waiting for it was given up.
func interrupted(ctx context.Context, r *container.InspectResponse) error {
	if r.State == nil {
		return ctx.Err()
	}
	text := fmt.Sprintf("container %q is still %s", strings.TrimPrefix(r.Name, "/"), r.State.Status)
	if h := currentHealth(r.State); h != compose.HealthNone {
		text = fmt.Sprintf("container %q is still %s, health %s", strings.TrimPrefix(r.Name, "/"), r.State.Status, h)
	}
	if probes := newProbes(r.State.Health); len(probes) > 0 {
		last := probes[len(probes)-1]
		text += fmt.Sprintf(" (its last check exited with %d: %s)", last.ExitCode, strings.TrimSpace(last.Output))
	}
	return fmt.Errorf("%s: %w", text, ctx.Err())
}

// awaitError explains why the condition cannot be satisfied any more.
func (c *Client) awaitError(ctx context.Context, r *container.InspectResponse, cond compose.Condition) error {
	e := &compose.AwaitError{
		Container: strings.TrimPrefix(r.Name, "/"), Condition: cond,
		State: compose.State(r.State.Status), ExitCode: r.State.ExitCode, OOMKilled: r.State.OOMKilled, Reason: r.State.Error,
	}
	if r.Config != nil {
		e.Service = r.Config.Labels[compose.LabelService]
	}
	if e.State == compose.StateRunning {
		e.Health = currentHealth(r.State)
		e.NoHealthcheck = e.Health == compose.HealthNone
	}
	if probes := newProbes(r.State.Health); len(probes) > 0 {
		e.Probe = &probes[len(probes)-1]
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	e.Log = c.tail(ctx, r.ID, failureLines)
	return e
}

// newProbes converts the recorded runs of a health check, oldest first.
func newProbes(h *container.Health) []compose.Probe {
	if h == nil {
		return nil
	}
	var out []compose.Probe
	for _, p := range h.Log {
		if p != nil {
			out = append(out, compose.Probe{Start: p.Start, End: p.End, ExitCode: p.ExitCode, Output: p.Output})
		}
	}
	return out
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
