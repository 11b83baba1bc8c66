// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// Explanation says why a service is in the state that it is in: data for the command line to show.
type Explanation struct {
	Service string
	// Summary is one sentence for all of it.
	Summary string
	// Containers tells of each container of the service, by number, half-made ones included.
	Containers []ContainerStory
	// Waits are the conditions on other services that depends_on states, by name.
	Waits []Wait
	// Next is what `up` would do for the service, and why; empty when nothing. NextError is why that cannot be told.
	Next      []Op
	NextError error
	// Provisional: whether it is recreated depends on what pulling or building its image gives.
	Provisional bool
}

// ContainerStory is what there is to tell of one container.
type ContainerStory struct {
	Container
	// Details is nil when the engine was not asked.
	Details *ContainerDetails
	// Text is the story in one sentence.
	Text string
	// Trouble: the story is one of failure.
	Trouble bool
	// LastProbe is the last run of its health check, if there was one since it started.
	LastProbe *Probe
}

// Wait is one condition that a service waits for before it starts.
type Wait struct {
	Service   string
	Condition Condition
	Optional  bool
	Satisfied bool
	// Observed is how far the other service is.
	Observed string
}

// WhyOptions are what an explanation is made from beside the snapshot.
type WhyOptions struct {
	// Details are what the engine tells of single containers, by ID: those of the service and, for its waits, those of what it depends on.
	Details map[string]ContainerDetails
	// Plan are the options of the `up` that Next is about.
	Plan PlanOptions
}

// Why explains the state of a service. p is nil when there are no Compose files: what `up` would do is left out then.
func Why(project string, p *types.Project, have Snapshot, name string, o WhyOptions) (Explanation, error) {
	v, err := newView(project, p, have)
	if err != nil {
		return Explanation{}, err
	}
	if !defined(v.p, name) {
		return Explanation{}, enabled(v.p, name)
	}
	x := explainer{view: v, now: have.Now, details: o.Details}
	e := Explanation{Service: name}
	for _, c := range v.containers[name] {
		e.Containers = append(e.Containers, x.story(c))
	}
	slices.SortStableFunc(e.Containers, func(a, b ContainerStory) int { return cmp.Compare(number(a.Container), number(b.Container)) })
	for _, d := range dependencies(v.service(name)) {
		e.Waits = append(e.Waits, x.wait(d))
	}
	e.Summary = x.summary(name, e)
	if _, ok := v.p.Services[name]; ok && p != nil {
		o.Plan.Services = []string{name}
		plan, err := NewPlan(p, have, o.Plan)
		e.NextError = err
		e.Provisional = slices.Contains(plan.Provisional, name)
		e.Next = slices.DeleteFunc(plan.Ops, func(op Op) bool { return op.Service != name })
	}
	return e, nil
}

func number(c Container) int {
	n, _ := strconv.Atoi(c.Labels[LabelContainerNumber])
	return n
}

type explainer struct {
	*view
	now     time.Time
	details map[string]ContainerDetails
}

// story tells of one container.
func (x explainer) story(c Container) ContainerStory {
	s := ContainerStory{Container: c}
	if d, ok := x.details[c.ID]; ok {
		s.Details = &d
		s.State, s.Health, s.ExitCode = cmp.Or(d.State, c.State), cmp.Or(d.Health, c.Health), d.ExitCode
		if n := len(d.Probes); n > 0 && !d.Probes[n-1].Start.Before(d.Started) {
			s.LastProbe = &d.Probes[n-1]
		}
	}
	switch s.State {
	case StateRunning:
		x.runningStory(&s)
	case StateRestarting:
		s.Trouble = true
		s.Text = fmt.Sprintf("it %s, and is restarted%s", s.ended(), s.restarts())
	case StateExited:
		s.Trouble = s.ExitCode != 0
		s.Text = fmt.Sprintf("it %s%s%s", s.ended(), x.ago(s.finished()), s.restarts())
	case StateCreated:
		s.Text = "it was created and never started"
		if s.Details != nil && s.Details.Error != "" {
			s.Trouble, s.Text = true, "it could not be started: "+s.Details.Error
		}
	case StatePaused:
		s.Text = "it is paused"
	default:
		s.Trouble, s.Text = true, "it is "+string(s.State)
	}
	return s
}

func (x explainer) runningStory(s *ContainerStory) {
	s.Text = "it runs"
	if s.Details != nil && !s.Details.Started.IsZero() {
		s.Text = "it has run for " + age(x.now.Sub(s.Details.Started))
	}
	switch s.Health {
	case HealthHealthy:
		s.Text += " and is healthy"
	case HealthStarting:
		s.Text += "; its health check has not succeeded yet" + s.probe()
	case HealthUnhealthy:
		s.Trouble = true
		s.Text += " and is unhealthy: its check failed" + s.streak() + s.probe()
	}
	if s.Details != nil && s.Details.RestartCount > 0 {
		s.Text += s.restarts()
	}
}

// ended says how the container's process ended.
func (s ContainerStory) ended() string {
	if s.Details != nil && s.Details.OOMKilled {
		return "ran out of memory and was killed"
	}
	if s.Details != nil && s.Details.Error != "" {
		return "failed: " + s.Details.Error
	}
	if meaning := exitMeaning(s.ExitCode); meaning != "" {
		return fmt.Sprintf("exited with %d (%s)", s.ExitCode, meaning)
	}
	return fmt.Sprintf("exited with %d", s.ExitCode)
}

// exitMeaning says what shells and engines mean by an exit code.
func exitMeaning(code int) string {
	switch code {
	case 125:
		return "the engine could not run it"
	case 126:
		return "its command cannot be executed"
	case 127:
		return "its command was not found"
	case 130:
		return "interrupted"
	case 137:
		return "killed"
	case 139:
		return "memory access violation"
	case 143:
		return "asked to stop"
	}
	return ""
}

func (s ContainerStory) finished() time.Time {
	if s.Details == nil {
		return time.Time{}
	}
	return s.Details.Finished
}

func (s ContainerStory) restarts() string {
	if s.Details == nil || s.Details.RestartCount == 0 {
		return ""
	}
	times := "once"
	if n := s.Details.RestartCount; n > 1 {
		times = fmt.Sprintf("%d times", n)
	}
	return fmt.Sprintf("; restarted %s by its policy %s", times, s.Details.RestartPolicy)
}

func (s ContainerStory) streak() string {
	if s.Details == nil || s.Details.FailingStreak < 2 {
		return ""
	}
	return fmt.Sprintf(" %d times in a row", s.Details.FailingStreak)
}

func (s ContainerStory) probe() string {
	if s.LastProbe == nil || s.LastProbe.ExitCode == 0 {
		return ""
	}
	out, _, _ := strings.Cut(strings.TrimSpace(s.LastProbe.Output), "\n")
	if out == "" {
		return fmt.Sprintf(", with exit code %d", s.LastProbe.ExitCode)
	}
	return fmt.Sprintf(", with exit code %d: %s", s.LastProbe.ExitCode, out)
}

func (x explainer) ago(t time.Time) string {
	if t.IsZero() || x.now.IsZero() {
		return ""
	}
	return " " + age(x.now.Sub(t)) + " ago"
}

// age gives a duration in the largest unit that fits.
func age(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := d / u.unit; n == 1 {
			return "1 " + u.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	if n := max(d, 0) / time.Second; n != 1 {
		return fmt.Sprintf("%d seconds", n)
	}
	return "1 second"
}

// wait tells how far a dependency is.
func (x explainer) wait(d dependency) Wait {
	w := Wait{Service: d.name, Condition: Condition(d.Condition), Optional: !d.Required}
	containers := x.containers[d.name]
	if _, ok := x.p.Services[d.name]; !ok {
		w.Satisfied, w.Observed = w.Optional, "it is disabled, or the project does not have it"
		return w
	}
	s := x.service(d.name)
	if len(containers) == 0 {
		w.Satisfied, w.Observed = s.GetScale() == 0 || s.Provider != nil, "it has no container"
		return w
	}
	w.Satisfied = true
	for _, c := range containers {
		story := x.story(c)
		met := fulfils(story, w.Condition)
		if w.Observed == "" || w.Satisfied && !met {
			w.Observed = story.Text
		}
		w.Satisfied = w.Satisfied && met
	}
	return w
}

// fulfils reports whether a container satisfies a condition of depends_on.
func fulfils(s ContainerStory, c Condition) bool {
	if c == ConditionStarted || c == "" {
		return s.State != StateCreated
	}
	return (&replica{old: &s.Container}).satisfies(c)
}

// summary is the one sentence: the first trouble there is, else what it waits for, else that all is well.
func (x explainer) summary(name string, e Explanation) string {
	for _, s := range e.Containers {
		if s.Trouble {
			return fmt.Sprintf("%s: container %s: %s", name, s.Name, s.Text)
		}
	}
	if s, ok := x.p.DisabledServices[name]; ok && len(e.Containers) == 0 {
		return fmt.Sprintf("%s does not run: it is in the profiles %s, none of which is active", name, strings.Join(s.Profiles, ", "))
	}
	waiting := slices.DeleteFunc(slices.Clone(e.Waits), func(w Wait) bool { return w.Satisfied })
	idle := len(e.Containers) == 0 || slices.ContainsFunc(e.Containers, func(s ContainerStory) bool { return s.State == StateCreated })
	if idle && len(waiting) > 0 {
		w := waiting[0]
		return fmt.Sprintf("%s waits for %s %s: %s", name, w.Service, conditionText(w.Condition), w.Observed)
	}
	if len(e.Containers) == 0 {
		return name + " has no container"
	}
	first := e.Containers[0].Text
	if same := !slices.ContainsFunc(e.Containers, func(s ContainerStory) bool { return s.Text != first }); same || len(e.Containers) == 1 {
		return fmt.Sprintf("%s: %s", name, first)
	}
	return fmt.Sprintf("%s has %d containers", name, len(e.Containers))
}

// conditionText says a condition as the end of "waits for x …".
func conditionText(c Condition) string {
	switch c {
	case ConditionHealthy:
		return "to be healthy"
	case ConditionCompleted:
		return "to complete"
	}
	return "to start"
}
