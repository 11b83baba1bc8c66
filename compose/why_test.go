// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"strings"
	"testing"
	"time"
)

const whyProject = `
services:
  web:
    image: nginx
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
      cache: {condition: service_started, required: false}
  migrate:
    image: job
  db:
    image: postgres
    healthcheck: {test: [CMD, "true"]}
  cache:
    image: redis
    profiles: [cached]
  debug:
    image: nginx
    profiles: [debug]
`

func TestWhySummary(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		service string
		events  string
		details func(*ContainerDetails)
		want    string
	}{
		"running": {"web", "", nil, "web: it runs"},
		"running for a while": {
			"web", "", func(d *ContainerDetails) { d.Started = started }, "web: it has run for 4 minutes",
		},
		"healthy": {"db", "", func(d *ContainerDetails) { d.Started = started }, "db: it has run for 4 minutes and is healthy"},
		"not healthy yet": {
			"db", "health app-db-1 starting",
			func(d *ContainerDetails) {
				d.Health, d.Probes = HealthStarting, []Probe{{Start: started, ExitCode: 1, Output: "no response\n"}}
			},
			"db: it runs; its health check has not succeeded yet, with exit code 1: no response",
		},
		"unhealthy": {
			"db", "health app-db-1 unhealthy",
			func(d *ContainerDetails) {
				d.Health, d.FailingStreak = HealthUnhealthy, 5
				d.Probes = []Probe{{Start: started, ExitCode: 0}, {Start: started, ExitCode: 2}}
			},
			"db: container app-db-1: it runs and is unhealthy: its check failed 5 times in a row, with exit code 2",
		},
		"probe of an earlier run": {
			"db", "health app-db-1 unhealthy",
			func(d *ContainerDetails) {
				d.Health, d.Started = HealthUnhealthy, started
				d.Probes = []Probe{{Start: started.Add(-time.Hour), ExitCode: 2, Output: "stale"}}
			},
			"db: container app-db-1: it has run for 4 minutes and is unhealthy: its check failed",
		},
		"exited": {"web", "exit app-web-1 1", nil, "web: container app-web-1: it exited with 1"},
		"exited a while ago": {
			"web", "exit app-web-1 127", func(d *ContainerDetails) { d.Finished = started.Add(3 * time.Minute) },
			"web: container app-web-1: it exited with 127 (its command was not found) 1 minute ago",
		},
		"out of memory": {
			"web", "exit app-web-1 137", func(d *ContainerDetails) { d.OOMKilled = true },
			"web: container app-web-1: it ran out of memory and was killed",
		},
		"completed": {"migrate", "", nil, "migrate: it exited with 0"},
		"restarting": {
			"web", "state app-web-1 restarting", func(d *ContainerDetails) { d.ExitCode, d.RestartCount, d.RestartPolicy = 1, 3, "always" },
			"web: container app-web-1: it exited with 1, and is restarted; restarted 3 times by its policy always",
		},
		"could not start": {
			"web", "state app-web-1 created", func(d *ContainerDetails) { d.Error = "port is taken" },
			"web: container app-web-1: it could not be started: port is taken",
		},
		"waits": {
			"web", "state app-web-1 created\nhealth app-db-1 starting", nil,
			"web waits for db to be healthy: it runs; its health check has not succeeded yet",
		},
		"waits for what is missing": {"web", "rm app-web-1\nrm app-migrate-1", nil, "web waits for migrate to complete: it has no container"},
		"never started":             {"web", "state app-web-1 created", nil, "web: it was created and never started"},
		"no container":              {"db", "rm app-db-1", nil, "db has no container"},
		"paused":                    {"db", "state app-db-1 paused", nil, "db: it is paused"},
		"dead":                      {"db", "state app-db-1 dead", nil, "db: container app-db-1: it is dead"},
		"disabled":                  {"debug", "", nil, "debug does not run: it is in the profiles debug, none of which is active"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scenario{engine: newFakeEngine(), p: load(t, whyProject)}
			s.engine.provide(s.p)
			if err := s.engine.up(s.p, PlanOptions{}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(c.events) {
				s.event(t, strings.Fields(line))
			}
			have, err := s.engine.Observe(context.Background(), QueryFor(s.p))
			if err != nil {
				t.Fatal(err)
			}
			o := WhyOptions{Details: map[string]ContainerDetails{}}
			for _, found := range have.Containers {
				if c.details != nil && found.Service() == c.service {
					d := ContainerDetails{ID: found.ID, State: found.State, ExitCode: found.ExitCode}
					c.details(&d)
					o.Details[found.ID] = d
				}
			}
			e, err := Why("app", s.p, have, c.service, o)
			if err != nil {
				t.Fatal(err)
			}
			if e.Summary != c.want {
				t.Errorf("got  %q\nwant %q", e.Summary, c.want)
			}
		})
	}
}

// TestWhyRest checks what goes with the summary: the waits and what up would do.
func TestWhyRest(t *testing.T) {
	f, p := newFakeEngine(), load(t, whyProject)
	f.provide(p)
	if err := f.up(p, PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	f.end(f.byName("app-web-1"), 1)
	f.end(f.byName("app-migrate-1"), 1)
	have, _ := f.Observe(context.Background(), QueryFor(p))
	e, err := Why("app", p, have, "web", WhyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e.NextError != nil || len(e.Next) != 1 || e.Next[0].String() != "start container app-web-1" || e.Next[0].Reason != "exited (1)" {
		t.Errorf("got next %v, %v", e.Next, e.NextError)
	}
	want := []Wait{
		{Service: "cache", Condition: ConditionStarted, Optional: true, Satisfied: true, Observed: "it is disabled, or the project does not have it"},
		{Service: "db", Condition: ConditionHealthy, Satisfied: true, Observed: "it runs and is healthy"},
		{Service: "migrate", Condition: ConditionCompleted, Satisfied: true, Observed: "it exited with 0"},
	}
	for i, w := range e.Waits {
		if i >= len(want) || w != want[i] {
			t.Errorf("got wait %+v", w)
		}
	}
	if _, err := Why("app", p, have, "nobody", WhyOptions{}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got error %v", err)
	}
	if e, err := Why("app", nil, have, "web", WhyOptions{}); err != nil || e.Next != nil || len(e.Waits) != 2 {
		t.Errorf("without files: got %+v, %v", e, err)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 seconds", time.Second: "1 second", 59 * time.Second: "59 seconds", time.Minute: "1 minute", 119 * time.Minute: "1 hour",
		47 * time.Hour: "1 day", 48 * time.Hour: "2 days",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
