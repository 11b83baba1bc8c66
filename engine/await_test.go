// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/seed71221737/dev/compose"
)

var started = time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)

// actors is a fake with containers that live: their state is set by the test, and each change is told as an event.
type actors struct {
	*fake
	mu      sync.Mutex
	states  map[string]*container.State
	streams map[chan events.Message]context.CancelFunc
	opened  chan struct{} // one sign for each event stream opened
}

func newActors(t *testing.T) *actors {
	a := &actors{
		fake: newFake(t), states: map[string]*container.State{}, streams: map[chan events.Message]context.CancelFunc{},
		opened: make(chan struct{}, 100),
	}
	a.on("GET /events", a.serveEvents)
	a.on("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		s, ok := a.states[r.PathValue("id")]
		if !ok {
			answer(w, 404, "No such container")
			return
		}
		answer(w, 200, container.InspectResponse{
			ID: r.PathValue("id"), Name: "/app-" + r.PathValue("id") + "-1", State: s, Config: &container.Config{Labels: labels("app", r.PathValue("id"))},
		})
	})
	a.on("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", types.MediaTypeMultiplexedStream)
		if r.URL.Query().Get("tail") != "10" {
			t.Errorf("asked for a tail of %q", r.URL.Query().Get("tail"))
		}
		_, _ = w.Write(frame(1, started, "listening\n"))
		_, _ = w.Write(frame(2, started, "oh no\n"))
	})
	return a
}

// frame is one message of a multiplexed log.
func frame(stream byte, when time.Time, text string) []byte {
	payload := when.Format("2006-01-02T15:04:05.000000000Z07:00") + " " + text
	header := make([]byte, 8)
	header[0] = stream
	binary.BigEndian.PutUint32(header[4:], uint32(len(payload)))
	return append(header, payload...)
}

func (a *actors) serveEvents(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ch := make(chan events.Message, 10)
	a.mu.Lock()
	a.streams[ch] = cancel
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.streams, ch)
		a.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	a.opened <- struct{}{}
	for {
		select {
		case m := <-ch:
			_ = json.NewEncoder(w).Encode(m)
			_ = http.NewResponseController(w).Flush()
		case <-ctx.Done():
			return
		}
	}
}

// set changes a container's state; silently tells nobody.
func (a *actors) setSilently(id string, s *container.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s == nil {
		delete(a.states, id)
		return
	}
	s.StartedAt = started.Format(time.RFC3339Nano)
	s.Running = s.Status == container.StateRunning
	a.states[id] = s
}

func (a *actors) set(id string, s *container.State, action events.Action) {
	a.setSilently(id, s)
	a.tell(id, action)
}

// tell sends an event of a container to all streams.
func (a *actors) tell(id string, action events.Action) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: id, Attributes: map[string]string{"name": "app-" + id + "-1"}}}
	for ch := range a.streams {
		ch <- m
	}
}

// cut breaks all event streams.
func (a *actors) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cancel := range a.streams {
		cancel()
	}
}

// await starts to wait, and returns where its outcome comes.
func (a *actors) await(ctx context.Context, c *Client, id string, cond compose.Condition) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.Await(ctx, id, cond) }()
	return done
}

func running(h container.HealthStatus, log ...*container.HealthcheckResult) *container.State {
	s := &container.State{Status: container.StateRunning}
	if h != "" {
		s.Health = &container.Health{Status: h, Log: log}
	}
	return s
}

func exited(code int) *container.State {
	return &container.State{Status: container.StateExited, ExitCode: code}
}

func probe(end time.Time, code int, output string) *container.HealthcheckResult {
	return &container.HealthcheckResult{Start: end.Add(-time.Second), End: end, ExitCode: code, Output: output}
}

func TestJudge(t *testing.T) {
	before, after := started.Add(-time.Minute), started.Add(time.Minute)
	restarting := &container.State{Status: container.StateRestarting, Running: true, Restarting: true}
	failed := &container.State{Status: container.StateCreated, Error: "no such file"}
	tests := []struct {
		name                        string
		s                           *container.State
		healthy, completed, running verdict
	}{
		{"created", &container.State{Status: container.StateCreated}, pending, pending, pending},
		{"never started", failed, impossible, impossible, impossible},
		{"no health check", running(""), impossible, pending, satisfied},
		{"starting", running(container.Starting), pending, pending, pending},
		{"healthy", running(container.Healthy, probe(after, 0, "")), satisfied, pending, satisfied},
		{"healthy before its start", running(container.Healthy, probe(before, 0, "")), pending, pending, pending},
		{"unhealthy", running(container.Unhealthy, probe(after, 1, "")), impossible, pending, impossible},
		{"unhealthy before its start", running(container.Unhealthy, probe(before, 1, "")), pending, pending, pending},
		{"paused", &container.State{Status: container.StatePaused}, pending, pending, pending},
		{"restarting", restarting, pending, pending, pending},
		{"exited well", exited(0), impossible, satisfied, satisfied},
		{"exited badly", exited(2), impossible, impossible, impossible},
		{"dead", &container.State{Status: container.StateDead}, impossible, impossible, impossible},
		{"removing", &container.State{Status: container.StateRemoving}, pending, pending, pending},
		{"unknown", nil, pending, pending, pending},
	}
	for _, tt := range tests {
		if tt.s != nil {
			tt.s.StartedAt = started.Format(time.RFC3339Nano)
		}
		got := []verdict{judge(tt.s, compose.ConditionHealthy), judge(tt.s, compose.ConditionCompleted), judge(tt.s, compose.ConditionRunningOrHealthy)}
		if want := []verdict{tt.healthy, tt.completed, tt.running}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v (healthy, completed, running or healthy)", tt.name, got, want)
		}
	}
}

func TestAwaitReactsToEvents(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Starting))
	c := a.client()
	done := a.await(t.Context(), c, "db", compose.ConditionHealthy)
	<-a.opened
	a.set("db", running(container.Healthy), events.ActionHealthStatusHealthy)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := a.count("GET /containers/db/json"); n > 3 {
		t.Errorf("looked %d times: once at the start, once for the event, and once if the stream was opened in between", n)
	}
}

func TestAwaitSharesOneStream(t *testing.T) {
	a := newActors(t)
	c := a.client()
	var all []<-chan error
	for _, id := range []string{"a", "b", "c", "d"} {
		a.setSilently(id, running(container.Starting))
		all = append(all, a.await(t.Context(), c, id, compose.ConditionHealthy), a.await(t.Context(), c, id, compose.ConditionHealthy))
	}
	<-a.opened
	for _, id := range []string{"d", "c", "b", "a"} {
		a.set(id, running(container.Healthy), events.ActionHealthStatusHealthy)
	}
	for _, done := range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := a.count("GET /events"); n != 1 {
		t.Errorf("%d event streams", n)
	}
}

func TestAwaitExplainsAnUnhealthyContainer(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Unhealthy, probe(started.Add(time.Second), 1, "x"), probe(started.Add(2*time.Second), 7, "connection refused\n")))
	err := a.client().Await(t.Context(), "db", compose.ConditionHealthy)
	e, ok := errors.AsType[*compose.AwaitError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if e.Container != "app-db-1" || e.Service != "db" || e.Health != compose.HealthUnhealthy || e.State != compose.StateRunning {
		t.Errorf("got %+v", e)
	}
	if e.Probe == nil || e.Probe.ExitCode != 7 || e.Probe.Output != "connection refused\n" {
		t.Errorf("probe %+v", e.Probe)
	}
	if !slices.Equal(e.Log, []string{"listening", "oh no"}) {
		t.Errorf("log %q", e.Log)
	}
}

func TestAwaitExplainsAnExit(t *testing.T) {
	a := newActors(t)
	a.setSilently("job", running(""))
	done := a.await(t.Context(), a.client(), "job", compose.ConditionCompleted)
	<-a.opened
	s := exited(137)
	s.OOMKilled = true
	a.set("job", s, events.ActionDie)
	e, ok := errors.AsType[*compose.AwaitError](<-done)
	if !ok || e.ExitCode != 137 || !e.OOMKilled || e.State != compose.StateExited || len(e.Log) != 2 {
		t.Errorf("got %+v", e)
	}
}

func TestAwaitNeedsAHealthCheck(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(""))
	e, ok := errors.AsType[*compose.AwaitError](a.client().Await(t.Context(), "db", compose.ConditionHealthy))
	if !ok || !e.NoHealthcheck {
		t.Errorf("got %+v", e)
	}
}

func TestAwaitNoticesARemoval(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Starting))
	done := a.await(t.Context(), a.client(), "db", compose.ConditionHealthy)
	<-a.opened
	a.set("db", nil, events.ActionDestroy)
	if e, ok := errors.AsType[*compose.AwaitError](<-done); !ok || !e.Gone {
		t.Errorf("got %+v", e)
	}
}

// TestAwaitSurvivesABrokenStream: what happened in the gap is seen although no event tells of it.
func TestAwaitSurvivesABrokenStream(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Starting))
	done := a.await(t.Context(), a.client(), "db", compose.ConditionHealthy)
	<-a.opened
	a.cut()
	a.setSilently("db", running(container.Healthy))
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-a.opened
}

func TestAwaitFailsWithoutAStream(t *testing.T) {
	f := newFake(t)
	f.reply("GET /events", 500, "no events today")
	err := f.client().Await(t.Context(), "db", compose.ConditionHealthy)
	if err == nil || !strings.Contains(err.Error(), "no events today") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitSaysWhatWasWaitedFor(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Starting, probe(started.Add(time.Second), 1, "not yet\n")))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := a.client().Await(ctx, "db", compose.ConditionHealthy)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `container "app-db-1" is still running, health starting (its last check exited with 1: not yet)`) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsWaits(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Starting))
	c := a.client()
	done := a.await(t.Context(), c, "db", compose.ConditionHealthy)
	<-a.opened
	_ = c.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got %v", err)
	}
}

func TestInspect(t *testing.T) {
	a := newActors(t)
	a.setSilently("db", running(container.Unhealthy, probe(started.Add(time.Second), 1, "x")))
	d, err := a.client().Inspect(t.Context(), "db", 10)
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "app-db-1" || d.Health != compose.HealthUnhealthy || !d.Started.Equal(started) || len(d.Probes) != 1 || len(d.Log) != 2 {
		t.Errorf("got %+v", d)
	}
}
