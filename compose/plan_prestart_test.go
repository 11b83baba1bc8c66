// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"
	"strings"
	"testing"
)

const preStartFile = `
name: p
services:
  web:
    image: app
    network_mode: none
    scale: 2
    environment: {A: "1"}
    depends_on: [db]
    pre_start:
      - {command: migrate, environment: {B: "2"}}
      - {image: other, command: warm, per_replica: true}
  db: {image: db, network_mode: none}
`

func TestPreStart(t *testing.T) {
	p := loadText(t, preStartFile)
	images := map[string]Image{"app": {ID: "sha256:app"}, "db": {ID: "sha256:db"}}
	plan, err := NewPlan(p, Snapshot{Images: images}, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := plan.String()
	for _, want := range []string{
		"pull image other", "create container p-web-pre_start-0: pre_start of p-web-1", "await container p-web-pre_start-0 service_completed_successfully",
		"remove container p-web-pre_start-0: pre_start has succeeded (best effort)", "create container p-web-pre_start-1-1", "create container p-web-pre_start-1-2",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	op := func(text string) Op {
		i := slices.IndexFunc(plan.Ops, func(o Op) bool { return o.String() == text })
		if i < 0 {
			t.Fatalf("no %q in\n%s", text, text)
		}
		return plan.Ops[i]
	}
	hook, warm := op("create container p-web-pre_start-0"), op("create container p-web-pre_start-1-2")
	if !slices.Contains(op("start container p-web-1").Needs, op("await container p-web-pre_start-1-1 service_completed_successfully").ID) ||
		!slices.Contains(hook.Needs, op("start container p-db-1").ID) || !slices.Contains(warm.Needs, op("create container p-web-2").ID) {
		t.Errorf("the order is wrong:\n%s", text)
	}
	spec := hook.Container
	if !slices.Equal(spec.Config.Cmd, []string{"migrate"}) || !slices.Equal(spec.Config.Env, []string{"A=1", "B=2"}) ||
		!slices.Equal(spec.Host.VolumesFrom, []string{"p-web-1"}) || spec.Config.Labels[LabelHook] != "pre_start" || spec.Config.Labels[LabelConfigHash] != "" {
		t.Errorf("the hook's container is %+v, labels %v, volumes from %v", spec.Config.Cmd, spec.Config.Labels, spec.Host.VolumesFrom)
	}
	if warm.Container.Config.Image != "other" || spec.Config.Image != "app" {
		t.Errorf("images %q and %q", spec.Config.Image, warm.Container.Config.Image)
	}
}

// TestPreStartOfARunningService: what runs once for the service does not run again when a replica is added, or nothing is to be done.
func TestPreStartOfARunningService(t *testing.T) {
	p := loadText(t, preStartFile)
	have := Snapshot{Images: map[string]Image{"app": {ID: "sha256:app"}, "db": {ID: "sha256:db"}, "other": {ID: "sha256:other"}}}
	made := func(service, name string, number int) {
		s := p.Services[service]
		spec, _, err := NewContainerSpec(p, s, ContainerInput{Number: number, Name: name, ImageID: have.Images[s.Image].ID})
		if err != nil {
			t.Fatal(err)
		}
		have.Containers = append(have.Containers, Container{ID: name, Name: name, Labels: spec.Config.Labels, State: StateRunning})
	}
	made("db", "p-db-1", 1)
	made("web", "p-web-1", 1)
	left := Container{ID: "left", Name: "p-web-pre_start-1-2", State: StateExited, ExitCode: 1, Labels: map[string]string{LabelProject: "p", LabelService: "web", LabelHook: "pre_start"}}
	have.Containers = append(have.Containers, left)
	plan, err := NewPlan(p, have, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := plan.String()
	if strings.Contains(text, "pre_start-0") || !strings.Contains(text, "create container p-web-pre_start-1-2") || strings.Contains(text, "pre_start-1-1") {
		t.Errorf("adding a replica:\n%s", text)
	}
	if !strings.Contains(text, "remove container p-web-pre_start-1-2: left over from a hook that failed") {
		t.Errorf("what is left of a hook that failed is in the way:\n%s", text)
	}
	down, err := NewDownPlan("p", p, have, DownOptions{})
	if err != nil || !strings.Contains(down.String(), "remove container p-web-pre_start-1-2: left over from a hook") {
		t.Errorf("%v:\n%s", err, down)
	}
	made("web", "p-web-2", 2)
	if plan, err = NewPlan(p, have, PlanOptions{}); err != nil || !plan.Empty() {
		t.Errorf("with everything running: %v\n%s", err, plan)
	}
}
