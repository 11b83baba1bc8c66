// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"slices"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// RunOptions are the flags of `run`, beside what OneOff holds.
type RunOptions struct {
	Service string
	OneOff  OneOff
	// NoDeps starts nothing that the service depends on.
	NoDeps bool
	// Build builds the service's image first.
	Build                        bool
	Pull                         string
	RemoveOrphans, IgnoreOrphans bool
	Timeout                      *time.Duration
	BuildOptions                 BuildOptions
	Environment                  map[string]string // see [ContainerInput]
	ImagesReady                  bool
}

// NewRunPlan says what makes a one-off container of a service: what it depends on is brought up as `up` does it, and awaited. The last operation creates the
// container, or puts its files into it; it is started too only with OneOff.Detach, since whoever attaches to it must do so first.
func NewRunPlan(p *types.Project, have Snapshot, o RunOptions) (Plan, error) {
	if err := enabled(p, o.Service); err != nil {
		return Plan{}, err
	}
	s := p.Services[o.Service]
	s.Name = o.Service
	pl, err := newPlanner(p, have, PlanOptions{
		Services: []string{o.Service}, NoDeps: o.NoDeps, Build: o.Build, Pull: o.Pull, RemoveOrphans: o.RemoveOrphans, IgnoreOrphans: o.IgnoreOrphans,
		Timeout: o.Timeout, BuildOptions: o.BuildOptions, Environment: o.Environment, ImagesReady: o.ImagesReady,
	})
	if err != nil {
		return Plan{}, err
	}
	pl.run = &o
	return pl.plan()
}

// emitRun makes the one-off container.
func (pl *planner) emitRun() error {
	if pl.run == nil {
		return nil
	}
	sv := pl.services[pl.run.Service]
	if sv.image.id == "" && sv.image.made == nil {
		return pl.missingImage(sv)
	}
	pl.rank = rankServices + len(pl.order)
	r := &replica{action: actionCreate, reason: reason{text: "run"}}
	in := ContainerInput{
		ImageID: sv.image.id, Services: map[string]Ref{}, Environment: pl.o.Environment, OneOff: &pl.run.OneOff, Replicas: pl.linked(sv),
	}
	one, err := pl.run.OneOff.Apply(pl.p, sv.ServiceConfig)
	if err != nil {
		return err
	}
	files, err := conversion{p: pl.p, s: one}.files()
	if err != nil {
		return located(pl.p, err)
	}
	r.name = one.ContainerName
	if r.made, err = pl.createFrom(sv, r, in); err != nil {
		return err
	}
	r.made.takes = r.name
	pl.awaitDependencies(sv, r.made)
	last := r.made
	if len(files) > 0 {
		last = pl.add(Op{Kind: OpCopyFiles, Target: "container " + r.name, Service: sv.Name, Reason: "its configs and secrets", Files: files})
		last.on(r.made, "")
	}
	if pl.run.OneOff.Detach {
		start := pl.add(Op{Kind: OpStartContainer, Target: "container " + r.name, Service: sv.Name, Reason: "run"}, last)
		pl.postStart(sv, r, start.on(r.made, ""))
	}
	return nil
}

// linked lists the containers of the services that one links to, by name.
func (pl *planner) linked(sv *service) map[string][]string {
	names := map[string][]string{}
	for _, d := range sv.deps {
		if !links(sv, d.name) {
			continue
		}
		x, ok := pl.services[d.name]
		if !ok {
			for _, c := range pl.byName[d.name] {
				names[d.name] = append(names[d.name], c.Name)
			}
			continue
		}
		for _, r := range x.replicas {
			names[d.name] = append(names[d.name], r.name)
		}
	}
	return names
}

// leaveAlone keeps a run's service itself out of what is brought up.
func (pl *planner) leaveAlone(sv *service) bool { return pl.run != nil && sv.Name == pl.run.Service }

// PullOptions are the flags of `pull`.
type PullOptions struct {
	Services    []string
	IncludeDeps bool
	// Policy replaces pull_policy: missing or always; empty: pull all that pull_policy does not forbid.
	Policy string
	// IgnoreBuildable pulls no image that a service builds; IgnoreFailures goes on without those that cannot be pulled.
	IgnoreBuildable, IgnoreFailures bool
}

// NewPullPlan says which images to pull for services.
func NewPullPlan(p *types.Project, have Snapshot, o PullOptions) (Plan, error) {
	pl, err := newPlanner(p, have, PlanOptions{Services: o.Services, NoDeps: !o.IncludeDeps})
	if err != nil {
		return Plan{}, err
	}
	pulled := map[imageKey]bool{}
	for _, sv := range pl.planned() {
		s := sv.ServiceConfig
		if o.Policy != "" {
			s.PullPolicy = o.Policy
		}
		policy, _, err := s.GetPullPolicy()
		if err != nil {
			return Plan{}, fmt.Errorf("service %q: %w", s.Name, err)
		}
		key := imageKey{s.Image, Platform(p, s)}
		skip := s.Image == "" || pulled[key] || policy == types.PullPolicyNever || policy == types.PullPolicyBuild || o.IgnoreBuildable && s.Build != nil
		if skip || s.PullPolicy != "" && (policy == types.PullPolicyMissing || policy == types.PullPolicyIfNotPresent) && pl.imageOf(s).id != "" {
			continue
		}
		pulled[key] = true
		pl.pull(s.Name, key.name, key.platform, "pull").BestEffort = o.IgnoreFailures
	}
	return pl.graph.plan(pl.result.Warnings)
}

// BuildPlanOptions are the flags of `build`.
type BuildPlanOptions struct {
	Services []string
	// WithDependencies builds what the services depend on, too.
	WithDependencies bool
	Build            BuildOptions
}

// NewBuildPlan says which images to build, those that others use first.
func NewBuildPlan(p *types.Project, have Snapshot, o BuildPlanOptions) (Plan, error) {
	pl, err := newPlanner(p, have, PlanOptions{Services: o.Services, NoDeps: !o.WithDependencies, Build: true, BuildOptions: o.Build})
	if err != nil {
		return Plan{}, err
	}
	var named []string
	for _, sv := range pl.planned() {
		if sv.Build == nil {
			if slices.Contains(o.Services, sv.Name) {
				named = append(named, sv.Name)
			}
			continue
		}
		if _, err := pl.build(sv.Name, "build", nil); err != nil {
			return Plan{}, err
		}
	}
	for _, name := range named {
		pl.warn(name, "it has no build section: nothing to build")
	}
	return pl.graph.plan(pl.result.Warnings)
}
