// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// NewRollbackPlan says what undoes an `up` that failed: before is what it found, now what it left. Containers and networks that it made are removed, those
// that it stopped are started, and those that it replaced are made again as they were, from their record and of the image that they had. Volumes that it made
// stay, with a warning: they may hold data. What a container was given by the content of configs and secrets is as the project has it now.
func NewRollbackPlan(p *types.Project, before, now Snapshot, timeout *time.Duration) (Plan, error) {
	r := &rollback{p: p, before: before, now: now, timeout: timeout, lost: map[string][]Container{}}
	for _, c := range before.Containers {
		if managed(c) && !c.OneOff() && !r.has(now, c.ID) {
			r.lost[c.Service()] = append(r.lost[c.Service()], c)
		}
	}
	restored, err := r.restore()
	if err != nil {
		return Plan{}, err
	}
	undone, err := r.undo()
	if err != nil {
		return Plan{}, err
	}
	return joinPlans(restored, undone, r.warnings), nil
}

// rollback holds what is found out on the way.
type rollback struct {
	graph
	p           *types.Project
	before, now Snapshot
	timeout     *time.Duration
	lost        map[string][]Container // by service: containers that are no more
	warnings    []Warning
}

func (r *rollback) has(s Snapshot, id string) bool {
	return slices.ContainsFunc(s.Containers, func(c Container) bool { return c.ID == id })
}

// restore makes the services that lost containers again what they were.
func (r *rollback) restore() (Plan, error) {
	q := *r.p
	q.Services = maps.Clone(r.p.Services)
	var names []string
	images := map[string]string{}
	r.now.Images = maps.Clone(r.now.Images)
	if r.now.Images == nil {
		r.now.Images = map[string]Image{}
	}
	for _, name := range slices.Sorted(maps.Keys(r.lost)) {
		old := r.lost[name][0]
		s, err := DecodeServiceConfig(old.Labels[LabelServiceConfig])
		if err != nil {
			r.warnings = append(r.warnings, Warning{Service: name, Text: fmt.Sprintf("container %s cannot be made again: what it was made from is not recorded", old.Name)})
			continue
		}
		s.Name, s.DependsOn = name, r.p.Services[name].DependsOn
		s.CustomLabels = projectLabels(old)
		scale := r.replicasBefore(name)
		s.Scale = &scale
		q.Services[name] = s
		names = append(names, name)
		images[name] = old.ImageID
		r.now.Images[ImageName(&q, s)] = Image{ID: old.ImageID}
	}
	if len(names) == 0 {
		return Plan{}, nil
	}
	plan, err := NewPlan(&q, r.now, PlanOptions{
		Services: names, NoDeps: true, NoBuild: true, Pull: types.PullPolicyNever, ImagesReady: true, IgnoreOrphans: true, Timeout: r.timeout,
	})
	if err != nil {
		return Plan{}, err
	}
	for _, op := range plan.Ops {
		if op.Kind == OpCreateContainer && images[op.Service] != "" {
			op.Container.Config.Image = images[op.Service] // its name may be another image's by now
		}
	}
	plan.Warnings = nil // of the project; they have been told
	return plan, nil
}

// replicasBefore counts the containers that a service had.
func (r *rollback) replicasBefore(service string) int {
	n := 0
	for _, c := range r.before.Containers {
		if c.Service() == service && managed(c) && !c.OneOff() {
			n++
		}
	}
	return n
}

// projectLabels are the labels by which a container belongs to its project, without what tells it from others.
func projectLabels(c Container) types.Labels {
	labels := types.Labels{}
	for _, key := range []string{LabelProject, LabelService, LabelVersion, LabelWorkingDir, LabelConfigFiles, LabelEnvFiles, LabelOneOff} {
		if value, ok := c.Labels[key]; ok {
			labels[key] = value
		}
	}
	return labels
}

// undo removes what was made, and starts what was stopped, of the other services.
func (r *rollback) undo() (Plan, error) {
	was := map[string]Container{}
	for _, c := range r.before.Containers {
		was[c.ID] = c
	}
	var removed []*step
	for _, c := range r.now.Containers {
		if _, restored := r.lost[c.Service()]; restored || c.OneOff() || !managed(c) && c.Labels[LabelHook] == "" {
			continue
		}
		old, there := was[c.ID]
		switch {
		case !there:
			removed = append(removed, r.discard(c, r.p.Services[c.Service()], discardOptions{timeout: r.timeout, why: "made by the up that failed"}))
		case running(old) && !running(c):
			r.add(Op{Kind: OpStartContainer, Target: "container " + c.Name, Service: c.Service(), Reason: "it ran before", Ref: Ref{ID: c.ID}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.now.Networks)) {
		n := r.now.Networks[name]
		if _, there := r.before.Networks[name]; !there && n.Labels[LabelProject] == r.p.Name && !r.usedByRestored(name) {
			r.add(Op{Kind: OpRemoveNetwork, Target: "network " + name, Reason: "made by the up that failed", Ref: Ref{ID: n.ID}}, removed...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.now.Volumes)) {
		if _, there := r.before.Volumes[name]; !there && r.now.Volumes[name].Labels[LabelProject] == r.p.Name {
			r.warnings = append(r.warnings, Warning{Text: fmt.Sprintf("volume %s was made and stays: it may hold data", name)})
		}
	}
	ops, err := r.ops()
	return Plan{Ops: ops}, err
}

// usedByRestored reports whether a container that is made again had the network.
func (r *rollback) usedByRestored(network string) bool {
	for _, list := range r.lost {
		for _, c := range list {
			if _, on := c.Networks[network]; on {
				return true
			}
		}
	}
	return false
}

// joinPlans puts one plan behind another, of which it needs nothing.
func joinPlans(first, second Plan, warnings []Warning) Plan {
	shift := func(ids []int) []int {
		var out []int
		for _, id := range ids {
			out = append(out, id+len(first.Ops))
		}
		return out
	}
	plan := Plan{Ops: first.Ops, Warnings: warnings}
	for _, op := range second.Ops {
		op.ID += len(first.Ops)
		op.Needs, op.After = shift(op.Needs), shift(op.After)
		if op.Ref.Op != 0 {
			op.Ref.Op += len(first.Ops)
		}
		if op.Fallback != 0 {
			op.Fallback += len(first.Ops)
		}
		plan.Ops = append(plan.Ops, op)
	}
	slices.SortStableFunc(plan.Warnings, func(a, b Warning) int { return strings.Compare(a.Service, b.Service) })
	return plan
}
