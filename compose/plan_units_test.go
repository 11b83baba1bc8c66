// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// depending makes a project whose services depend on each other as told: loading a file refuses some of these.
func depending(on map[string][]string) *types.Project {
	p := &types.Project{Name: "app", Services: types.Services{}}
	for name, deps := range on {
		s := types.ServiceConfig{Name: name}
		s.Image = "x"
		s.DependsOn = types.DependsOnConfig{}
		for _, d := range deps {
			s.DependsOn[d] = types.ServiceDependency{Condition: types.ServiceConditionStarted, Required: true}
		}
		p.Services[name] = s
	}
	return p
}

func TestDependencyErrors(t *testing.T) {
	disabled := depending(map[string][]string{"web": {"db"}})
	disabled.DisabledServices = types.Services{"db": {Name: "db", Profiles: []string{"data"}}}
	for name, c := range map[string]struct {
		p        *types.Project
		services []string
		want     string
		hint     string
	}{
		"circle": {
			depending(map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b"}}), nil, "services depend on each other in a circle: b → c → b",
			"take one of these out of depends_on",
		},
		"itself":              {depending(map[string][]string{"a": {"a"}}), nil, "in a circle: a → a", ""},
		"missing":             {depending(map[string][]string{"web": {"db"}}), nil, `service "web" depends on "db", which the project does not have`, "dev config --services"},
		"disabled":            {disabled, nil, `service "web" depends on "db", which is disabled: it is in the profiles data`, "add --profile data"},
		"asked for, disabled": {disabled, []string{"db"}, `service "db" is disabled: it is in the profiles data`, "add --profile data"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewPlan(c.p, Snapshot{}, PlanOptions{Services: c.services})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got error %v, want %q", err, c.want)
			}
			var hinter interface{ Hint() string }
			if !errors.As(err, &hinter) || !strings.Contains(hinter.Hint(), c.hint) {
				t.Errorf("got hint of %v, want %q", err, c.hint)
			}
		})
	}
}

func TestOptionErrors(t *testing.T) {
	p := depending(map[string][]string{"web": nil})
	have := Snapshot{Images: map[string]Image{"x": {ID: "1"}}}
	for name, o := range map[string]PlanOptions{
		`no such service: "db"`:                 {Scale: map[string]int{"db": 1}},
		`service "web": cannot scale to -1`:     {Scale: map[string]int{"web": -1}},
		`invalid pull_policy "sometimes"`:       {Pull: "sometimes"},
		`service "web": image "x" is not there`: {Pull: "never", ImagesReady: true},
	} {
		if strings.Contains(name, "not there") {
			have.Images = nil
		}
		if _, err := NewPlan(p, have, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got error %v, want %s", err, name)
		}
		have.Images = map[string]Image{"x": {ID: "1"}}
	}
	if _, err := NewDownPlan("app", p, have, DownOptions{Images: "some"}); err == nil || !strings.Contains(err.Error(), `"some"`) {
		t.Errorf("got error %v", err)
	}
	for name, plan := range map[string]func() (Plan, error){
		"down": func() (Plan, error) { return NewDownPlan("app", p, have, DownOptions{Services: []string{"db"}}) },
		"stop": func() (Plan, error) { return NewStopPlan("app", p, have, StopOptions{Services: []string{"db"}}) },
		"kill": func() (Plan, error) { return NewKillPlan("app", p, have, KillOptions{Services: []string{"db"}}) },
		"run":  func() (Plan, error) { return NewRunPlan(p, have, RunOptions{Service: "db"}) },
		"pull": func() (Plan, error) { return NewPullPlan(p, have, PullOptions{Services: []string{"db"}}) },
	} {
		if _, err := plan(); err == nil || !strings.Contains(err.Error(), `no such service: "db"`) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	if _, err := NewStopPlan("app", nil, have, StopOptions{Services: []string{"db"}}); err != nil {
		t.Errorf("without files a service may be gone: %v", err)
	}
}

// TestBuildCircle: two builds that use each other's image.
func TestBuildCircle(t *testing.T) {
	p := depending(map[string][]string{"a": nil, "b": nil})
	for name, other := range map[string]string{"a": "b", "b": "a"} {
		s := p.Services[name]
		s.Image = ""
		s.Build = &types.BuildConfig{Context: ".", AdditionalContexts: types.Mapping{"base": "service:" + other}}
		p.Services[name] = s
	}
	_, err := NewPlan(p, Snapshot{}, PlanOptions{})
	if err == nil || !strings.Contains(err.Error(), "a → b → a") {
		t.Errorf("got error %v", err)
	}
}

// TestStepCircle: a planner's mistake is told, not run into.
func TestStepCircle(t *testing.T) {
	var g graph
	a := g.add(Op{Kind: OpCreateVolume, Target: "volume a"})
	b := g.add(Op{Kind: OpCreateVolume, Target: "volume b"}, a)
	a.need(b)
	g.add(Op{Kind: OpCreateVolume, Target: "volume c"})
	_, err := g.ops()
	if err == nil || !strings.Contains(err.Error(), "create volume a; create volume b") {
		t.Errorf("got error %v", err)
	}
}

func TestPlanImages(t *testing.T) {
	f := newFakeEngine()
	p := load(t, "services:\n  web:\n    build: .\n    image: me/web\n  db:\n    image: postgres\n")
	plan, err := f.plan(p, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := "[] -> #1 pull image postgres: not there\n[] -> #2 pull image me/web: not there (best effort)\n" +
		"[!2] -> #3 build image me/web: in case it cannot be pulled\n"
	if got := plan.Images().String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if plan.Empty() || len(plan.Destructive()) > 0 {
		t.Errorf("plan is empty or destructive:\n%s", plan)
	}
}

// TestPlanIsPure: the arguments stay as they were, and the same arguments give the same plan.
func TestPlanIsPure(t *testing.T) {
	f := newFakeEngine()
	p := load(t, crashBefore)
	f.provide(p)
	if err := f.up(p, PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	have, _ := f.Observe(context.Background(), QueryFor(p))
	before, _ := p.MarshalYAML()
	var first string
	for i := range 20 {
		plan, err := NewPlan(p, have, PlanOptions{ForceRecreate: true, Scale: map[string]int{"web": 3}, Pull: "always"})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = plan.String()
		} else if got := plan.String(); got != first {
			t.Fatalf("got\n%s\nand\n%s", got, first)
		}
	}
	if after, _ := p.MarshalYAML(); string(after) != string(before) {
		t.Errorf("the project changed:\n%s\n%s", before, after)
	}
}

func TestQueryFor(t *testing.T) {
	p := load(t, `
services:
  web:
    build: {context: ., additional_contexts: {base: "service:base"}}
    volumes: [{type: image, source: assets, target: /assets}, "data:/data"]
  db:
    image: postgres
    pull_policy: weekly
    networks: [back]
  base:
    build: base
    platform: linux/arm64
    profiles: [never]
networks: {back: {external: true, name: shared}}
volumes: {data: {}}
`)
	got := QueryFor(p)
	want := Query{
		Project: "app", Networks: []string{"app_default", "shared"}, Volumes: []string{"app_data"},
		Images: []string{"app-base", "app-web", "assets", "postgres"}, Tagged: []string{"postgres"},
		IDOnly: []string{"app-web", "assets"},
	}
	if got.Project != want.Project || !slices.Equal(got.Networks, want.Networks) || !slices.Equal(got.Volumes, want.Volumes) ||
		!slices.Equal(got.Images, want.Images) || !slices.Equal(got.Tagged, want.Tagged) || !slices.Equal(got.IDOnly, want.IDOnly) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPortRange(t *testing.T) {
	for text, want := range map[string][3]int{
		"": {}, "80": {80, 80, 1}, "80-90": {80, 90, 1}, "90-80": {90, 80, 0}, "0": {}, "x": {}, "80-x": {80, 0, 0},
	} {
		first, last, ok := portRange(text)
		if ok != (want[2] == 1) || ok && (first != want[0] || last != want[1]) {
			t.Errorf("%q: got %d %d %v", text, first, last, ok)
		}
	}
}

func TestAgeText(t *testing.T) {
	for d, want := range map[time.Duration]string{24 * time.Hour: "1d", 36 * time.Hour: "36h", 90 * time.Minute: "1h30m", 30 * time.Second: "30s"} {
		if got := ageText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// TestTemporaryName: only what looks like a recreation's temporary name is taken for one.
func TestTemporaryName(t *testing.T) {
	for name, want := range map[string]bool{
		"0123456789ab_app-web-1": true, "app-web-1": false, "0123456789ab_app-web-2": false, "0123456789aX_app-web-1": false, "ab_app-web-1": false,
	} {
		if got := temporaryName(name, "app-web-1"); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestFailureLeavesTheRest: what does not depend on a failure is brought up, what does is created and waits for the next up.
func TestFailureLeavesTheRest(t *testing.T) {
	f := newFakeEngine()
	p := load(t, `
services:
  web: {image: nginx, depends_on: {db: {condition: service_healthy}}}
  db: {image: sick, healthcheck: {test: [CMD, "true"]}}
  cron: {image: cron, depends_on: {db: {condition: service_healthy, required: false}}}
  other: {image: nginx}
`)
	f.provide(p)
	err := f.up(p, PlanOptions{})
	var failed *AwaitError
	if !errors.As(err, &failed) || failed.Service != "db" {
		t.Fatalf("got error %v", err)
	}
	for name, want := range map[string]State{"app-web-1": StateCreated, "app-db-1": StateRunning, "app-cron-1": StateRunning, "app-other-1": StateRunning} {
		if got := f.byName(name).State; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
