// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// StopOptions are the flags of `stop`.
type StopOptions struct {
	Services []string
	Timeout  *time.Duration // grace period in place of the containers' own
}

// NewStopPlan says what stops the services' running containers, those of dependents first. p is nil when there are no Compose files.
func NewStopPlan(project string, p *types.Project, have Snapshot, o StopOptions) (Plan, error) {
	v, err := newView(project, p, have)
	if err != nil {
		return Plan{}, err
	}
	services, err := v.selected(o.Services)
	if err != nil {
		return Plan{}, err
	}
	var g graph
	v.stopAll(&g, services, o.Timeout, true)
	return g.plan(nil)
}

// stopAll stops the running containers of services, and what their providers made if those are asked, and returns the last step for each container, by ID.
func (v *view) stopAll(g *graph, services []string, timeout *time.Duration, providers bool) map[string]*step {
	stopped := map[string]*step{}
	last := map[string][]*step{}
	for _, name := range slices.Backward(services) {
		var after []*step
		for _, other := range services {
			if slices.ContainsFunc(dependencies(v.service(other)), func(d dependency) bool { return d.name == name }) {
				after = append(after, last[other]...)
			}
		}
		last[name] = after
		if s := v.p.Services[name]; s.Provider != nil && providers {
			last[name] = []*step{g.endProvider(s, "stop", after)}
		}
		for i, c := range slices.DeleteFunc(slices.Clone(v.containers[name]), func(c Container) bool { return !running(c) }) {
			if i == 0 {
				last[name] = nil
			}
			stopped[c.ID] = g.halt(c, v.service(name), timeout, "stop", after...)
			last[name] = append(last[name], stopped[c.ID])
		}
	}
	return stopped
}

// plan numbers the steps of a plan that says nothing more.
func (g *graph) plan(warnings []Warning) (Plan, error) {
	ops, err := g.ops()
	return Plan{Ops: ops, Warnings: warnings}, err
}

// StartOptions are the flags of `start`.
type StartOptions struct {
	Services []string
	// Wait ends the plan with waiting for the services to be running, healthy or successfully completed.
	Wait bool
}

// NewStartPlan says what starts the existing containers of services and of what they depend on. p is nil when there are no Compose files.
func NewStartPlan(project string, p *types.Project, have Snapshot, o StartOptions) (Plan, error) {
	files := p != nil
	if !files {
		p = projectFromLabels(project, have)
	}
	pl, err := newPlanner(p, have, PlanOptions{Services: o.Services, Wait: o.Wait})
	if err != nil {
		return Plan{}, err
	}
	for _, sv := range pl.planned() {
		for _, c := range pl.byName[sv.Name] {
			pl.takeUp(sv, c)
		}
		if len(sv.replicas) == 0 && sv.GetScale() > 0 && files {
			return Plan{}, &planError{fmt.Sprintf("service %q has no container to start", sv.Name), "dev up " + sv.Name}
		}
		pl.follow(sv)
	}
	if err := pl.emitStarts(); err != nil {
		return Plan{}, err
	}
	if err := pl.emitWaits(); err != nil {
		return Plan{}, err
	}
	return pl.graph.plan(nil)
}

// takeUp makes a replica of an existing container, as it is.
func (pl *planner) takeUp(sv *service, c Container) {
	if !usable(c) {
		return
	}
	n, _ := strconv.Atoi(c.Labels[LabelContainerNumber])
	r := &replica{number: n, name: c.Name, old: &c}
	pl.settle(sv, r)
	sv.replicas = append(sv.replicas, r)
}

// RestartOptions are the flags of `restart`.
type RestartOptions struct {
	Services []string
	// NoDeps restarts the named services alone, not those that depend on them with restart: true.
	NoDeps  bool
	Timeout *time.Duration
}

// NewRestartPlan says what restarts the containers of services, running or not, and of those that depend on them with restart: true.
// Containers stay as they were made: a warning tells where the Compose files say something else by now. p is nil when there are none.
func NewRestartPlan(project string, p *types.Project, have Snapshot, o RestartOptions) (Plan, error) {
	v, err := newView(project, p, have)
	if err != nil {
		return Plan{}, err
	}
	services, err := v.selected(o.Services)
	if err != nil {
		return Plan{}, err
	}
	restarts := func(d dependency) bool { return d.Restart }
	if len(o.Services) > 0 && !o.NoDeps {
		services = v.dependents(services, restarts)
	}
	services = slices.DeleteFunc(services, func(name string) bool { return v.p.Services[name].Name == "" })
	pl := &planner{p: v.p, have: have, awaits: map[awaitKey]*step{}, services: map[string]*service{}}
	for i, name := range services {
		sv := &service{ServiceConfig: v.service(name), rank: i}
		sv.deps = slices.DeleteFunc(dependencies(sv.ServiceConfig), func(d dependency) bool { return !d.Restart })
		pl.services[name] = sv
		pl.rank = i
		for _, c := range v.containers[name] {
			if usable(c) {
				pl.restart(sv, c, o.Timeout)
			}
		}
		if v.files {
			pl.warnOfDrift(sv, v.containers[name])
		}
	}
	return pl.graph.plan(pl.result.Warnings)
}

// restart restarts one container, after those that it follows.
func (pl *planner) restart(sv *service, c Container, timeout *time.Duration) {
	r := &replica{name: c.Name, old: &c}
	op := Op{Kind: OpRestartContainer, Target: "container " + c.Name, Service: sv.Name, Reason: "restart", Timeout: timeout, Ref: Ref{ID: c.ID}}
	st := pl.add(op, pl.preStop(c, sv.ServiceConfig, nil))
	pl.awaitDependencies(sv, st)
	r.started = pl.postStart(sv, r, st)
	sv.replicas = append(sv.replicas, r)
}

func (pl *planner) warnOfDrift(sv *service, containers []Container) {
	hash, err := ServiceHash(pl.p, sv.ServiceConfig)
	if err != nil || slices.ContainsFunc(dependencies(sv.ServiceConfig), func(d dependency) bool { return d.shares || d.mounts }) {
		return
	}
	for _, c := range containers {
		sv.hash = hash
		if why := pl.assessConfig(sv, c); why.text != "" {
			pl.warn(sv.Name, "%s since container %s was made, and a restart does not change that: dev up %s", why.text, c.Name, sv.Name)
			return
		}
	}
}

// KillOptions are the flags of `kill`.
type KillOptions struct {
	Services []string
	Signal   string // default: SIGKILL
	// RemoveOrphans signals the containers of services the project no longer has, too.
	RemoveOrphans bool
}

// NewKillPlan says what sends a signal to the running containers of services, one-offs included, in no particular order. p is nil when there are no
// Compose files.
func NewKillPlan(project string, p *types.Project, have Snapshot, o KillOptions) (Plan, error) {
	if o.Signal == "" {
		o.Signal = "SIGKILL"
	}
	op := Op{Kind: OpKillContainer, Reason: o.Signal, Signal: o.Signal}
	return eachContainer(project, p, have, o.Services, o.RemoveOrphans, func(c Container) (Op, bool) { return op, running(c) })
}

// PauseOptions are the arguments of `pause` and `unpause`.
type PauseOptions struct{ Services []string }

// NewPausePlan says what pauses the running containers of services. p is nil when there are no Compose files.
func NewPausePlan(project string, p *types.Project, have Snapshot, o PauseOptions) (Plan, error) {
	op := Op{Kind: OpPauseContainer, Reason: "pause"}
	return eachContainer(project, p, have, o.Services, false, func(c Container) (Op, bool) { return op, c.State == StateRunning && !c.OneOff() })
}

// NewUnpausePlan says what unpauses the paused containers of services. p is nil when there are no Compose files.
func NewUnpausePlan(project string, p *types.Project, have Snapshot, o PauseOptions) (Plan, error) {
	op := Op{Kind: OpUnpauseContainer, Reason: "unpause"}
	return eachContainer(project, p, have, o.Services, false, func(c Container) (Op, bool) { return op, c.State == StatePaused && !c.OneOff() })
}

// eachContainer makes one operation for every container of the services, and every orphan if asked for, that pick picks; they do not wait for each other.
func eachContainer(
	project string, p *types.Project, have Snapshot, names []string, orphans bool, pick func(Container) (Op, bool),
) (Plan, error) {
	v, err := newView(project, p, have)
	if err != nil {
		return Plan{}, err
	}
	services, err := v.selected(names)
	if err != nil {
		return Plan{}, err
	}
	var g graph
	for _, c := range have.Containers {
		orphan := managed(c) && !c.OneOff() && !defined(v.p, c.Service())
		if !managed(c) || !slices.Contains(services, c.Service()) && !(orphan && orphans) {
			continue
		}
		op, ok := pick(c)
		if !ok {
			continue
		}
		op.Target, op.Service, op.Ref = "container "+c.Name, c.Service(), Ref{ID: c.ID}
		g.add(op)
	}
	return g.plan(nil)
}

// RemoveOptions are the flags of `rm`.
type RemoveOptions struct {
	Services []string
	// Stop stops running containers first; without it they stay.
	Stop bool
	// Volumes removes anonymous volumes with the containers: data is lost.
	Volumes bool
	Timeout *time.Duration
}

// NewRemovePlan says what removes the services' containers that do not run, one-offs left alone. p is nil when there are no Compose files.
func NewRemovePlan(project string, p *types.Project, have Snapshot, o RemoveOptions) (Plan, error) {
	v, err := newView(project, p, have)
	if err != nil {
		return Plan{}, err
	}
	services, err := v.selected(o.Services)
	if err != nil {
		return Plan{}, err
	}
	var g graph
	stopped := map[string]*step{}
	if o.Stop {
		stopped = v.stopAll(&g, services, o.Timeout, false)
	}
	for _, name := range services {
		for _, c := range v.containers[name] {
			if running(c) && !o.Stop {
				continue
			}
			c.State = StateExited
			g.discard(c, v.service(name), discardOptions{why: "rm", volumes: o.Volumes, beforeGoing: []*step{stopped[c.ID]}})
		}
	}
	return g.plan(nil)
}
