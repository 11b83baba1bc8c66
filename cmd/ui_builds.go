// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/build"
)

// stepTail is how many lines of output are kept of a step.
const stepTail = 8

// builds follows the steps of image builds. Builds side by side are shown together; the service's name stands before each step.
type builds struct {
	mu sync.Mutex
	// running are the builds under way, by operation.
	running map[int]bool
	began   time.Time
	// steps are those that have begun, in that order; byID are all.
	steps []*buildStep
	byID  map[string]*buildStep
	// tell, if set, is given a line for each thing that happens, as it happens.
	tell func(line string)
}

// buildStep is one step of one build.
type buildStep struct {
	number int // 0 before it begins
	name   string
	spans  []span
	cached bool
	failed string
	parts  []*build.Part
	tail   []string
	// partial is output after its last end of line.
	partial []byte
}

// span is a time at which a step ran; one that runs has no end.
type span struct{ from, to time.Time }

func newBuilds(tell func(line string)) *builds {
	return &builds{tell: tell, running: map[int]bool{}, byID: map[string]*buildStep{}}
}

// take reports whether the event was a build's progress, and takes it up. ended tells that it ended the last build under way.
func (b *builds) take(e compose.Event) (taken, ended bool) {
	if e.Op.Kind != compose.OpBuildImage {
		return false, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Kind {
	case compose.EventStarted:
		if len(b.running) == 0 {
			b.began = time.Now()
		}
		b.running[e.Op.ID] = true
	case compose.EventDone, compose.EventFailed, compose.EventSkipped:
		ended = b.running[e.Op.ID] && len(b.running) == 1 && len(b.steps) > 0
		delete(b.running, e.Op.ID)
	case compose.EventProgress:
		if s, ok := e.Detail.(*build.Status); ok {
			b.update(e.Op.Service, s)
		}
		return true, false
	}
	return false, ended
}

// update takes up what a build tells; b.mu is held.
func (b *builds) update(service string, s *build.Status) {
	for _, n := range s.Steps {
		b.step(service, n.ID).update(b, service, n)
	}
	for _, p := range s.Parts {
		b.step(service, p.Step).setPart(b, p)
	}
	for _, w := range s.Warnings {
		b.step(service, w.Step).say(b, "WARN: "+w.Text)
	}
	for _, l := range s.Logs {
		b.step(service, l.Step).log(b, l)
	}
}

// step finds a step of a service's build.
func (b *builds) step(service, id string) *buildStep {
	key := service + " " + id
	x := b.byID[key]
	if x == nil {
		x = &buildStep{}
		b.byID[key] = x
	}
	return x
}

// update takes up how far a step is. A step may run more than once, such as when its cache is looked for first.
func (x *buildStep) update(b *builds, service string, n build.Step) {
	x.name = stepName(service, n.Name)
	if n.Started == nil {
		return
	}
	x.introduce(b)
	last := len(x.spans) - 1
	if last < 0 || !x.spans[last].from.Equal(*n.Started) {
		x.spans = append(x.spans, span{from: *n.Started})
		last++
	}
	if n.Completed == nil || !x.spans[last].to.IsZero() {
		return
	}
	x.spans[last].to = *n.Completed
	x.cached, x.failed = n.Cached, n.Error
	x.flush(b)
	x.say(b, x.outcome())
}

// stepName puts the service's name before a step: "[web 1/4] FROM …".
func stepName(service, name string) string {
	if rest, ok := strings.CutPrefix(name, "["); ok {
		return "[" + service + " " + rest
	}
	return "[" + service + "] " + name
}

// outcome is what a step that has ended came to.
func (x *buildStep) outcome() string {
	switch {
	case strings.HasSuffix(x.failed, "context canceled"):
		return "CANCELED"
	case x.failed != "":
		return "ERROR: " + x.failed
	case x.cached:
		return "CACHED"
	}
	return fmt.Sprintf("DONE %.1fs", x.elapsed(time.Time{}).Seconds())
}

// done reports whether a step has run and does not run now.
func (x *buildStep) done() bool { return len(x.spans) > 0 && !x.spans[len(x.spans)-1].to.IsZero() }

// runs reports whether a step runs now.
func (x *buildStep) runs() bool { return len(x.spans) > 0 && !x.done() }

// elapsed is how long a step has run until now.
func (x *buildStep) elapsed(now time.Time) time.Duration {
	var all time.Duration
	for _, s := range x.spans {
		if to := s.to; !to.IsZero() {
			all += to.Sub(s.from)
		} else {
			all += max(0, now.Sub(s.from))
		}
	}
	return all
}

// introduce gives the step its number when it begins, and tells its name.
func (x *buildStep) introduce(b *builds) {
	if x.number == 0 {
		b.steps = append(b.steps, x)
		x.number = len(b.steps)
		x.say(b, x.name)
	}
}

// say tells a line about the step.
func (x *buildStep) say(b *builds, text string) {
	if b.tell != nil && x.number > 0 {
		b.tell(fmt.Sprintf("#%d %s", x.number, text))
	}
}

// setPart takes up how far a part of a step is; its beginning and its end are told.
func (x *buildStep) setPart(b *builds, p build.Part) {
	for _, have := range x.parts {
		if have.Name != p.Name {
			continue
		}
		ends := have.Completed == nil && p.Completed != nil
		*have = p
		if ends {
			x.say(b, partText(p)+" done")
		}
		return
	}
	x.parts = append(x.parts, &p)
	text := partText(p)
	if p.Completed != nil {
		text += " done"
	}
	x.say(b, text)
}

// partText is a part's name and bytes.
func partText(p build.Part) string {
	switch {
	case p.Total > 0:
		return fmt.Sprintf("%s %s / %s", p.Name, units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total)))
	case p.Current > 0:
		return p.Name + " " + units.HumanSize(float64(p.Current))
	}
	return p.Name
}

// log takes up a step's output, line by line.
func (x *buildStep) log(b *builds, l build.Log) {
	x.partial = append(x.partial, l.Data...)
	for {
		line, rest, ok := bytes.Cut(x.partial, []byte("\n"))
		if !ok {
			return
		}
		x.partial = rest
		x.line(b, string(line), l.At)
	}
}

// flush takes up output without an end of line when nothing follows it.
func (x *buildStep) flush(b *builds) {
	if len(x.partial) > 0 {
		x.line(b, string(x.partial), x.spans[len(x.spans)-1].to)
		x.partial = nil
	}
}

func (x *buildStep) line(b *builds, line string, at time.Time) {
	line = strings.TrimRight(line, "\r")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:] // what a terminal would show of it
	}
	if len(x.spans) > 0 {
		line = fmt.Sprintf("%.3f %s", max(0, at.Sub(x.spans[0].from).Seconds()), line)
	}
	if x.tail = append(x.tail, line); len(x.tail) > stepTail {
		x.tail = x.tail[1:]
	}
	x.say(b, line)
}

// buildSteps are a build's steps and their output as parts of its row, nil for any other event.
func buildSteps(e compose.Event) []status {
	s, ok := e.Detail.(*build.Status)
	if !ok {
		return nil
	}
	out := []status{}
	id := title(e.Op.Target)
	for _, v := range s.Steps {
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
		out = append(out, status{ID: id, Part: l.Step, Text: "Output", Details: strings.TrimRight(string(l.Data), "\n")})
	}
	return out
}
