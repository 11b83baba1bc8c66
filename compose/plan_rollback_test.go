// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"
	"strings"
	"testing"
)

// TestRollback undoes an up that replaced web, made new and its volume, stopped db, and failed.
func TestRollback(t *testing.T) {
	old := loadText(t, "name: p\nservices:\n  web: {image: app, network_mode: none, environment: {A: old}, command: serve}\n  db: {image: app, network_mode: none}\n")
	p := loadText(t, "name: p\nservices:\n  web: {image: app, network_mode: none, environment: {A: new}}\n  db: {image: app, network_mode: none}\n  new: {image: app, volumes: ['data:/d']}\nvolumes: {data: {}}\n")
	made := func(id, service string, image string, state State) Container {
		from := p
		if strings.HasPrefix(id, "old") {
			from = old
		}
		spec, _, err := NewContainerSpec(from, from.Services[service], ContainerInput{Number: 1, ImageID: image})
		if err != nil {
			t.Fatal(err)
		}
		return Container{ID: id, Name: spec.Name, Labels: spec.Config.Labels, ImageID: image, State: state}
	}
	own := map[string]string{LabelProject: "p"}
	before := Snapshot{Containers: []Container{made("old-web", "web", "sha256:old", StateRunning), made("old-db", "db", "sha256:old", StateRunning)}}
	now := Snapshot{
		Containers: []Container{
			made("new-web", "web", "sha256:new", StateRunning), made("old-db", "db", "sha256:old", StateExited), made("new-new", "new", "sha256:new", StateExited),
		},
		Networks: map[string]Network{"p_default": {ID: "net", Name: "p_default", Labels: own}},
		Volumes:  map[string]Volume{"p_data": {Name: "p_data", Labels: own}},
		Images:   map[string]Image{"app": {ID: "sha256:new"}},
	}
	plan, err := NewRollbackPlan(p, before, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := plan.String()
	for _, want := range []string{
		"create container p-web-1: command, environment.A changed", "start container p-web-1", "start container p-db-1: it ran before",
		"remove container p-new-1: made by the up that failed", "remove network p_default: made by the up that failed", "volume p_data was made and stays: it may hold data",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "loses data") || strings.Contains(text, "remove volume") {
		t.Errorf("data is lost:\n%s", text)
	}
	i := slices.IndexFunc(plan.Ops, func(o Op) bool { return o.Kind == OpCreateContainer })
	if c := plan.Ops[i].Container; c.Config.Image != "sha256:old" || !slices.Contains(c.Config.Env, "A=old") || c.Config.Labels[LabelService] != "web" || c.Config.Labels[LabelProject] != "p" {
		t.Errorf("web is made again from %q with %v, labels %v", c.Config.Image, c.Config.Env, c.Config.Labels)
	}
	for n, op := range plan.Ops {
		if op.ID != n+1 || slices.ContainsFunc(op.Needs, func(id int) bool { return id >= op.ID }) {
			t.Errorf("operation %d has the number %d and needs %v", n+1, op.ID, op.Needs)
		}
	}
	if plan, err = NewRollbackPlan(p, now, now, nil); err != nil || !plan.Empty() || len(plan.Warnings) > 0 {
		t.Errorf("nothing was done, and yet: %v\n%s", err, plan)
	}
	delete(before.Containers[0].Labels, LabelServiceConfig)
	if plan, err = NewRollbackPlan(p, before, now, nil); err != nil || !strings.Contains(plan.String(), "container p-web-1 cannot be made again") || strings.Contains(plan.String(), "remove container p-web-1") {
		t.Errorf("without a record: %v\n%s", err, plan)
	}
}
