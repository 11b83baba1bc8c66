// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// emitStarts starts what does not run, when what it depends on is as far as it needs it.
func (pl *planner) emitStarts() error {
	if pl.o.NoStart {
		return nil
	}
	ports := pl.portsFreed()
	for _, sv := range pl.planned() {
		for _, r := range sv.replicas {
			pl.rank = sv.rank
			st, err := pl.emitStart(sv, r)
			if err != nil {
				return err
			}
			if st != nil {
				pl.gate(sv, r, st, ports)
				r.started = pl.postStart(sv, r, st)
			}
		}
	}
	return nil
}

// emitStart makes the step that starts a replica, nil if it runs already.
func (pl *planner) emitStart(sv *service, r *replica) (*step, error) {
	op := Op{Kind: OpStartContainer, Target: "container " + r.name, Service: sv.Name, Reason: r.reason.text}
	switch {
	case r.action == actionCreate:
		op.Reason = "created"
	case r.action == actionRecreate:
		op.Reason = "recreated"
	case r.bounce != "":
		op.Reason = r.bounce
	case r.action == actionUnpause:
		op.Kind = OpUnpauseContainer
	case r.action == actionKeep:
		return nil, nil
	}
	copied, err := pl.copyFiles(sv, r)
	if err != nil {
		return nil, err
	}
	prepared, err := pl.preStart(sv, r)
	if err != nil {
		return nil, err
	}
	st := pl.add(op, copied, prepared, r.named, r.stopped)
	return st.on(r.made, r.id()), nil
}

// copyFiles puts configs and secrets into a container that is about to start, nil if it has none or need not be started.
func (pl *planner) copyFiles(sv *service, r *replica) (*step, error) {
	if len(sv.Configs)+len(sv.Secrets) == 0 || r.action == actionUnpause && r.bounce == "" {
		return nil, nil
	}
	files, err := conversion{p: pl.p, s: sv.ServiceConfig}.files()
	if err != nil || len(files) == 0 {
		return nil, located(pl.p, err)
	}
	st := pl.add(Op{
		Kind: OpCopyFiles, Target: "container " + r.name, Service: sv.Name, Reason: "its configs and secrets", Files: files,
	}, r.stopped)
	return st.on(r.made, r.id()), nil
}

// postStart runs the hooks that belong to a start and returns the step after which the replica counts as started.
func (pl *planner) postStart(sv *service, r *replica, start *step) *step {
	if start.Kind == OpUnpauseContainer {
		return start
	}
	n := len(pl.steps)
	last := pl.hooks(sv.PostStart, "post_start", Op{Target: "container " + r.name, Service: sv.Name}, []*step{start})
	if last == nil {
		return start
	}
	for _, hook := range pl.steps[n:] {
		hook.on(r.made, r.id())
	}
	return last
}

// gate lets a start wait for dependencies, for the ports it publishes, and for other starts that publish ranges of ports: engines hand
// those out in a way that two starts at once can get the same.
func (pl *planner) gate(sv *service, r *replica, start *step, ports map[string][]freedPort) {
	start.need(pl.stopDependents(sv, false)...)
	pl.awaitDependencies(sv, start)
	for port := range publishedPorts(sv.ServiceConfig) {
		for _, f := range ports[port] {
			if r.old == nil || f.holder != r.old.ID {
				start.need(f.free)
			}
		}
	}
	if publishesRange(sv.ServiceConfig) {
		start.follow(pl.lastRange)
		pl.lastRange = start
	}
}

// awaitDependencies lets a start wait until what the service depends on is as far as depends_on says.
func (pl *planner) awaitDependencies(sv *service, start *step) {
	for _, d := range sv.deps {
		x, ok := pl.services[d.name]
		if !ok {
			continue
		}
		for _, r := range x.replicas {
			before := r.started
			if c := Condition(d.Condition); c == ConditionHealthy || c == ConditionCompleted {
				before = pl.await(x, r, c, d.Required, sv.Name)
			}
			if d.Required {
				start.need(before)
			} else {
				start.follow(before)
			}
		}
	}
}

// awaitKey identifies one thing to wait for.
type awaitKey struct {
	replica   *replica
	condition Condition
}

// await returns the step after which a replica satisfies a condition, nil if it does already. One that only optional dependents wait for may fail.
func (pl *planner) await(x *service, r *replica, c Condition, required bool, waiter string) *step {
	if r.started == nil && r.satisfies(c) {
		return nil
	}
	key := awaitKey{r, c}
	st, ok := pl.awaits[key]
	if !ok {
		rank := pl.rank
		pl.rank = x.rank
		st = pl.add(Op{Kind: OpAwait, Target: "container " + r.name, Service: x.Name, Condition: c, BestEffort: true}, r.started)
		pl.rank = rank
		st.on(r.made, r.id())
		pl.awaits[key] = st
	}
	if required {
		st.BestEffort = false
	}
	if waiter != "" {
		st.waiters = append(st.waiters, waiter)
		st.Reason = waitReason(st.waiters)
	}
	return st
}

func waitReason(waiters []string) string {
	waiters = slices.Compact(slices.Sorted(slices.Values(waiters)))
	verb := "depend"
	if len(waiters) == 1 {
		verb = "depends"
	}
	if more := len(waiters) - 3; more > 0 {
		return fmt.Sprintf("%s and %d more %s on it", strings.Join(waiters[:3], ", "), more, verb)
	}
	return fmt.Sprintf("%s %s on it", strings.Join(waiters, ", "), verb)
}

// satisfies reports whether the container that stands for the replica satisfies the condition as it was observed.
func (r *replica) satisfies(c Condition) bool {
	if r.old == nil || r.action != actionKeep {
		return false
	}
	done := r.old.State == StateExited && r.old.ExitCode == 0
	up := r.old.State == StateRunning
	switch c {
	case ConditionHealthy:
		return up && r.old.Health == HealthHealthy
	case ConditionCompleted:
		return done
	case ConditionRunningOrHealthy:
		return done || up && (r.old.Health == HealthNone || r.old.Health == HealthHealthy)
	}
	return true
}

// emitWaits ends the plan with waiting for all of it, as --wait asks for.
func (pl *planner) emitWaits() error {
	if !pl.o.Wait || pl.o.NoStart {
		return nil
	}
	for _, sv := range pl.planned() {
		if sv.dragged {
			continue
		}
		c := ConditionRunningOrHealthy
		if pl.oneShots[sv.Name] {
			c = ConditionCompleted
		}
		for _, r := range sv.replicas {
			if st := pl.awaits[awaitKey{r, ConditionHealthy}]; st != nil && !st.BestEffort {
				continue // more than enough
			}
			if st := pl.await(sv, r, c, true, ""); st != nil && st.Reason == "" {
				st.Reason = "--wait"
			}
		}
	}
	return nil
}

// freedPort is a host port that a container holds until a step of the plan removes it.
type freedPort struct {
	holder string // container ID
	free   *step
}

// portsFreed lists, by port and protocol, the containers that the plan removes.
func (pl *planner) portsFreed() map[string][]freedPort {
	ports := map[string][]freedPort{}
	for _, c := range pl.have.Containers {
		free, ok := pl.freed[c.Name]
		if !ok {
			continue
		}
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				key := fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
				ports[key] = append(ports[key], freedPort{c.ID, free})
			}
		}
	}
	return ports
}

// publishedPorts lists the fixed host ports of a service, as port/protocol.
func publishedPorts(s types.ServiceConfig) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, p := range s.Ports {
			first, last, ok := portRange(p.Published)
			for n := first; ok && n <= last; n++ {
				if !yield(fmt.Sprintf("%d/%s", n, cmp.Or(p.Protocol, "tcp"))) {
					return
				}
			}
		}
	}
}

func publishesRange(s types.ServiceConfig) bool {
	return slices.ContainsFunc(s.Ports, func(p types.ServicePortConfig) bool {
		first, last, ok := portRange(p.Published)
		return ok && last > first
	})
}

// portRange reads a published port: a number, or two with a dash between. It reports false for none, which lets the engine choose.
func portRange(published string) (first, last int, ok bool) {
	from, to, isRange := strings.Cut(published, "-")
	first, err := strconv.Atoi(from)
	if err != nil || first == 0 {
		return 0, 0, false
	}
	if !isRange {
		return first, first, true
	}
	last, err = strconv.Atoi(to)
	return first, last, err == nil && last >= first
}
