// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// state is what the agent knows, and who follows it. It is safe for concurrent use.
type state struct {
	log *slog.Logger

	mu       sync.Mutex
	status   hostagent.Status
	problems map[string]hostagent.Problem // by what has the problem
	ports    map[string]hostagent.Port    // by protocol and host address
	watchers map[*watcher]struct{}
	closed   bool
	said     []hostagent.Event // of late, for who begins to follow a moment too late
}

// watcher gets events until its channel is closed: at the agent's end, or because it does not keep up.
type watcher struct{ events chan hostagent.Event }

// watcherBacklog is how far a watcher may fall behind.
const watcherBacklog = 1024

func newState(machine string, pid int, log *slog.Logger) *state {
	return &state{
		log: log, problems: map[string]hostagent.Problem{}, ports: map[string]hostagent.Port{}, watchers: map[*watcher]struct{}{},
		status: hostagent.Status{Version: 1, Machine: machine, Phase: hostagent.Starting, Started: time.Now(), AgentPID: pid},
	}
}

// snapshot is the status now.
func (s *state) snapshot() hostagent.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Phase = s.phase()
	for _, key := range slices.Sorted(maps.Keys(s.problems)) {
		st.Problems = append(st.Problems, s.problems[key])
	}
	for _, key := range slices.Sorted(maps.Keys(s.ports)) {
		st.Ports = append(st.Ports, s.ports[key])
	}
	return st
}

// rank orders the phases: there is no way back to a lower one, and within one only while the machine lives.
func rank(p hostagent.Phase) int {
	switch p {
	case hostagent.Starting:
		return 0
	case hostagent.Running, hostagent.Degraded, hostagent.Suspending, hostagent.Suspended, hostagent.Resuming:
		return 1
	case hostagent.Stopping:
		return 2
	case hostagent.Stopped:
		return 3
	}
	return 4
}

// phase is Degraded where something is wrong with a running machine.
func (s *state) phase() hostagent.Phase {
	if s.status.Phase == hostagent.Running && len(s.problems) > 0 {
		return hostagent.Degraded
	}
	return s.status.Phase
}

// set changes the status by f.
func (s *state) set(f func(*hostagent.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// stage says that a start has reached a stage, in words of its own where what is done is not the usual.
func (s *state) stage(stage hostagent.Stage, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Stage == stage {
		return
	}
	s.status.Stage = stage
	s.publish(hostagent.Event{Kind: "stage", Stage: stage, Text: text, Phase: s.phase()})
	s.log.Info("stage", "stage", string(stage))
}

// enter says that the agent has come to a phase. There is no way back: a start that comes to its end after an order to stop was taken does not make the
// machine run. A machine that lives may fall asleep and wake as often as it does.
func (s *state) enter(phase hostagent.Phase, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from, to := rank(s.status.Phase), rank(phase); to < from || phase == s.status.Phase {
		return
	}
	s.status.Phase = phase
	if phase == hostagent.Running {
		s.status.Stage = ""
	}
	s.publish(hostagent.Event{Kind: "phase", Phase: s.phase(), Stage: s.status.Stage, Text: text})
	s.log.Info("phase", "phase", string(s.phase()), "text", text)
}

// What was said is told once more to who begins to follow soon after: a start is under way before the command that asked for it can follow.
const (
	maxSaid  = 16
	saidLate = 30 * time.Second
)

// say tells who follows, and the log, something that no phase and no problem says.
func (s *state) say(text string) {
	text = hostagent.Printable(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := hostagent.Event{Time: time.Now(), Kind: "log", Text: text, Stage: s.status.Stage}
	s.said = append(s.said[max(0, len(s.said)-maxSaid+1):], e)
	s.publish(e)
	s.log.Warn(text)
}

// has says whether something has a problem.
func (s *state) has(subject string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.problems[subject]
	return ok
}

// fail says why the start, or the machine, came to nothing.
func (s *state) fail(p hostagent.Problem) {
	p.Text = hostagent.Printable(p.Text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Phase = hostagent.Failed
	s.problems["failure"] = p
	s.publish(hostagent.Event{Kind: "phase", Phase: hostagent.Failed, Stage: s.status.Stage, Text: p.Text, Problem: &p})
	s.log.Error("failed", "stage", string(s.status.Stage), "problem", p.Text)
}

// problem notes that something has one; a nil problem that it has none any more.
func (s *state) problem(subject string, p *hostagent.Problem) {
	if p != nil {
		shown := *p
		shown.Text = hostagent.Printable(p.Text)
		p = &shown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.problems[subject]
	if p == nil && !had || p != nil && had && old == *p {
		return
	}
	switch s.status.Phase {
	case hostagent.Stopping, hostagent.Suspending, hostagent.Suspended:
		if p != nil {
			return // what ends is no news
		}
	}
	before := s.phase()
	if p == nil {
		delete(s.problems, subject)
		s.log.Info("solved", "problem", old.Text)
	} else {
		s.problems[subject] = *p
		s.publish(hostagent.Event{Kind: "problem", Problem: p, Text: p.Text, Phase: s.phase()})
		s.log.Warn("problem", "code", p.Code, "text", p.Text)
	}
	if after := s.phase(); after != before {
		s.publish(hostagent.Event{Kind: "phase", Phase: after})
	}
}

// port notes a published port; removed says that it is served no more.
func (s *state) port(p hostagent.Port, removed bool) {
	p.Container, p.Problem = hostagent.Printable(p.Container), hostagent.Printable(p.Problem)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := p.Protocol + " " + p.Host
	if removed {
		delete(s.ports, key)
		s.publish(hostagent.Event{Kind: "port", Port: &p, Text: "closed"})
		return
	}
	if old, ok := s.ports[key]; ok && old == p {
		return // tried again, with the same result
	}
	s.ports[key] = p
	s.publish(hostagent.Event{Kind: "port", Port: &p, Text: "open"})
}

// publish stamps an event and hands it to the watchers; s.mu is held.
func (s *state) publish(e hostagent.Event) {
	e.Time = time.Now()
	for w := range s.watchers {
		select {
		case w.events <- e:
		default:
			s.drop(w)
		}
	}
}

func (s *state) drop(w *watcher) {
	delete(s.watchers, w)
	close(w.events)
}

// watch follows events from now on, the first being the present phase.
func (s *state) watch() *watcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watcher{events: make(chan hostagent.Event, watcherBacklog)}
	first := hostagent.Event{Time: time.Now(), Kind: "phase", Phase: s.phase(), Stage: s.status.Stage}
	if p, ok := s.problems["failure"]; ok {
		first.Problem, first.Text = &p, p.Text
	}
	for _, e := range s.said {
		if time.Since(e.Time) < saidLate {
			w.events <- e
		}
	}
	w.events <- first
	if s.closed {
		close(w.events)
		return w
	}
	s.watchers[w] = struct{}{}
	return w
}

func (s *state) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.watchers[w]; ok {
		s.drop(w)
	}
}

// close ends all watchers, once they have got what was said.
func (s *state) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for w := range s.watchers {
		s.drop(w)
	}
}
