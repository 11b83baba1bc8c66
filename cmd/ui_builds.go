// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/seed71221737/dev/compose"
)

// builds shows the steps of image builds with BuildKit's own display, as users know it. It opens with the first step and closes when no
// build runs any more. Builds side by side share one display; the service's name stands before each step.
type builds struct {
	out  io.Writer
	mode progressui.DisplayMode
	// opened and closed are told around the display, so that nothing else writes to the terminal meanwhile.
	opened, closed func()

	mu      sync.Mutex
	running map[int]bool
	steps   chan *client.SolveStatus
	done    chan struct{}
}

func newBuilds(out io.Writer, mode progressui.DisplayMode) *builds {
	return &builds{out: out, mode: mode, opened: func() {}, closed: func() {}, running: map[int]bool{}}
}

// take reports whether the event was the display's: a build's steps. The build's start and end it only looks at.
func (b *builds) take(e compose.Event) bool {
	if e.Op.Kind != compose.OpBuildImage {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Kind {
	case compose.EventStarted:
		b.running[e.Op.ID] = true
	case compose.EventDone, compose.EventFailed, compose.EventSkipped:
		delete(b.running, e.Op.ID)
		if len(b.running) == 0 {
			b.stop()
		}
	case compose.EventProgress:
		s, ok := e.Detail.(*client.SolveStatus)
		if ok && b.start() {
			b.steps <- prefixSteps(s, e.Op.Service)
		}
		return true
	}
	return false
}

// start opens the display if it is not; b.mu is held.
func (b *builds) start() bool {
	if b.steps != nil {
		return true
	}
	b.opened()
	display, err := progressui.NewDisplay(b.out, b.mode)
	if err != nil {
		display, err = progressui.NewDisplay(b.out, progressui.PlainMode)
	}
	if err != nil {
		return false
	}
	steps, done := make(chan *client.SolveStatus, 16), make(chan struct{})
	b.steps, b.done = steps, done
	go func() {
		defer close(done)
		// The display ends with its channel: a cancelled build still closes its steps, and those are worth seeing.
		_, _ = display.UpdateFrom(context.Background(), steps)
	}()
	return true
}

// stop closes the display and waits until it has drawn its last; b.mu is held.
func (b *builds) stop() {
	if b.steps == nil {
		return
	}
	close(b.steps)
	<-b.done
	b.steps = nil
	b.closed()
}

func (b *builds) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop()
}

// buildSteps are a build's steps and their output as parts of its row, nil for any other event.
func buildSteps(e compose.Event) []status {
	s, ok := e.Detail.(*client.SolveStatus)
	if !ok {
		return nil
	}
	out := []status{}
	id := title(e.Op.Target)
	for _, v := range s.Vertexes {
		step := status{ID: id, Part: v.Name, Text: "Queued"}
		switch {
		case v.Error != "":
			step.State, step.Text, step.Details = rowFailed, "Error", v.Error
		case v.Completed != nil && v.Cached:
			step.State, step.Text = rowDone, "Cached"
		case v.Completed != nil:
			step.State, step.Text = rowDone, "Done"
		case v.Started != nil:
			step.Text = "Running"
		}
		out = append(out, step)
	}
	for _, l := range s.Logs {
		out = append(out, status{ID: id, Part: l.Vertex.String(), Text: "Output", Details: strings.TrimRight(string(l.Data), "\n")})
	}
	return out
}

// prefixSteps returns s with the service's name before each step: "[web 1/4] FROM …".
func prefixSteps(s *client.SolveStatus, service string) *client.SolveStatus {
	out := *s
	out.Vertexes = make([]*client.Vertex, len(s.Vertexes))
	for i, v := range s.Vertexes {
		w := *v
		if name, ok := strings.CutPrefix(w.Name, "["); ok {
			w.Name = "[" + service + " " + name
		} else {
			w.Name = "[" + service + "] " + w.Name
		}
		out.Vertexes[i] = &w
	}
	return &out
}
