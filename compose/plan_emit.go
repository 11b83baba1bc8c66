// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// emitContainers makes the steps that create, replace and remove containers; starts come later.
func (pl *planner) emitContainers() error {
	for _, sv := range pl.planned() {
		pl.rank = sv.rank
		for _, l := range sv.surplus {
			pl.removeLeftover(sv, l)
		}
		for _, r := range sv.replicas {
			if err := pl.emitReplica(sv, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// emitReplica brings a replica to where it could be started.
//
// A container is replaced in an order that can be interrupted anywhere and continued by the next plan, or by docker compose: the
// successor is created under a temporary name, with the anonymous volumes of the old one; that stops, is removed, and the successor
// takes over its name.
func (pl *planner) emitReplica(sv *service, r *replica) error {
	var err error
	switch r.action {
	case actionCreate:
		r.made, err = pl.create(sv, r, r.name)
		r.named = r.made
		return err
	case actionRecreate:
		if r.next == nil {
			if pl.cleared(r) {
				r.made, err = pl.create(sv, r, r.name)
				r.made.need(pl.removeOld(sv, r))
				r.named = r.made
				return err
			}
			if r.made, err = pl.create(sv, r, shortID(r.old.ID)+"_"+r.name); err != nil {
				return err
			}
		}
		r.named = pl.rename(sv, r, pl.removeOld(sv, r))
	default:
		if temporaryName(r.old.Name, r.name) {
			r.named = pl.rename(sv, r, nil)
		}
	}
	return nil
}

// cleared reports whether the replica's old container goes before its successor is made, as it mounts a volume that is replaced.
func (pl *planner) cleared(r *replica) bool { return r.old != nil && pl.replacedVolume(*r.old) != "" }

// early reports whether the replica stops before anything is made in its place.
func (pl *planner) early(r *replica) bool {
	return r.bounce != "" || pl.replacedNetwork(*r.old) != "" || pl.cleared(r)
}

// create makes the container of a replica under a name.
func (pl *planner) create(sv *service, r *replica, name string) (*step, error) {
	if sv.image.id == "" && sv.image.made == nil {
		return nil, pl.missingImage(sv)
	}
	in := ContainerInput{
		Number: r.number, Name: name, ImageID: sv.image.id, Services: map[string]Ref{}, Environment: pl.o.Environment, Replicas: pl.linked(sv),
	}
	if r.action == actionRecreate {
		in.Replace = cmp.Or(sv.ContainerName, fmt.Sprint(sv.Name, separator(pl.p), r.number))
		if !pl.o.RenewAnonVolumes || !sv.named {
			in.Inherit = AnonymousVolumes(*r.old, sv.ServiceConfig)
		}
	}
	st, err := pl.createFrom(sv, r, in)
	if err == nil {
		st.takes = name
	}
	return st, err
}

// createFrom makes a container as in says, once all that it needs to exist does.
func (pl *planner) createFrom(sv *service, r *replica, in ContainerInput) (*step, error) {
	st := pl.add(Op{
		Kind: OpCreateContainer, Target: "container " + r.name, Service: sv.Name, Reason: r.reason.text, Changes: r.reason.changes,
	}, sv.image.made)
	for _, key := range networksOf(sv.ServiceConfig) {
		if n, ok := pl.networks[key]; ok {
			st.need(n.made)
		}
	}
	for _, key := range volumesOf(sv.ServiceConfig) {
		if v, ok := pl.volumes[key]; ok {
			st.need(v.made)
		}
	}
	for _, ref := range imageMounts(sv.ServiceConfig) {
		st.need(pl.imageNamed(ref, "").made)
	}
	shared, err := pl.needShared(sv, st, &in)
	if err != nil {
		return nil, err
	}
	st.fill = func() error {
		for name, made := range shared {
			in.Services[name] = Ref{Op: made.ID}
		}
		if sv.image.made != nil {
			in.Image = Ref{Op: sv.image.made.ID}
		}
		spec, _, err := NewContainerSpec(pl.p, sv.ServiceConfig, in)
		st.Container = &spec
		return err
	}
	return st, nil
}

// needShared lets a create step need the containers whose namespaces and volumes it uses and those it links to. It returns the steps that
// make such containers; the IDs of those that exist go into in.
func (pl *planner) needShared(sv *service, st *step, in *ContainerInput) (map[string]*step, error) {
	steps := map[string]*step{}
	for _, d := range sv.deps {
		if d.shares || d.mounts {
			id, made, err := pl.sharedContainer(sv, d)
			if err != nil {
				return nil, err
			}
			if made != nil {
				steps[d.name] = made.made
				st.need(made.made)
			} else {
				in.Services[d.name] = Ref{ID: id}
			}
		}
		if x, ok := pl.services[d.name]; ok && links(sv, d.name) {
			for _, r := range x.replicas {
				st.need(r.named)
			}
		}
	}
	return steps, nil
}

func links(sv *service, to string) bool {
	return slices.ContainsFunc(sv.Links, func(l string) bool { name, _, _ := strings.Cut(l, ":"); return name == to })
}

// stop stops the container that stands for a replica, after those of the services that follow this one.
func (pl *planner) stop(sv *service, r *replica) *step {
	if r.stopped != nil {
		return r.stopped
	}
	needs := pl.stopDependents(sv, pl.early(r))
	if !pl.early(r) {
		needs = append(needs, r.made)
	}
	pl.rank = sv.rank
	why := "replaced"
	if r.action != actionRecreate {
		why = r.bounce
	}
	r.stopped = pl.halt(*r.old, sv.ServiceConfig, pl.o.Timeout, why, needs...)
	return r.stopped
}

// stopDependents stops the containers that must not run while sv's are replaced; with early, also those that stop before anything is made, so that no
// container outlives what it depends on.
func (pl *planner) stopDependents(sv *service, early bool) []*step {
	var steps []*step
	for _, y := range pl.dependents(sv.Name) {
		d := y.deps[slices.IndexFunc(y.deps, func(d dependency) bool { return d.name == sv.Name })]
		for _, r := range y.replicas {
			if r.runs() && (r.bounce != "" && disturbs(d, sv) != "" || early && pl.early(r)) {
				steps = append(steps, pl.stop(y, r))
			}
		}
	}
	return steps
}

// dependents lists the planned services that depend on one. It is asked for once all is decided.
func (pl *planner) dependents(name string) []*service {
	if pl.dependentsOf == nil {
		pl.dependentsOf = map[string][]*service{}
		for _, sv := range pl.planned() {
			for _, d := range sv.deps {
				pl.dependentsOf[d.name] = append(pl.dependentsOf[d.name], sv)
			}
		}
	}
	return pl.dependentsOf[name]
}

// removeOld removes the container that a replica's successor replaces.
func (pl *planner) removeOld(sv *service, r *replica) *step {
	if r.removed != nil {
		return r.removed
	}
	o := discardOptions{timeout: pl.o.Timeout, why: "replaced"}
	if !pl.cleared(r) {
		o.beforeGoing = []*step{r.made}
	}
	old := *r.old
	if r.runs() && (pl.early(r) || !noGrace(o.timeout, sv.ServiceConfig)) {
		o.beforeGoing = append(o.beforeGoing, pl.stop(sv, r))
		old.State = StateExited
	} else if r.runs() {
		o.beforeStop = append(pl.stopDependents(sv, false), r.made)
	}
	pl.rank = sv.rank
	r.removed = pl.discard(old, sv.ServiceConfig, o)
	pl.freed[old.Name] = r.removed
	return r.removed
}

// removeLeftover removes a container that the service does not need.
func (pl *planner) removeLeftover(sv *service, l leftover) *step {
	if done, ok := pl.freed[l.Name]; ok {
		return done
	}
	pl.rank = sv.rank
	removed := pl.discard(l.Container, sv.ServiceConfig, discardOptions{timeout: pl.o.Timeout, why: l.why})
	pl.freed[l.Name] = removed
	return removed
}

// rename gives a container the name it shall have.
func (pl *planner) rename(sv *service, r *replica, removed *step) *step {
	pl.rank = sv.rank
	st := pl.add(Op{
		Kind: OpRenameContainer, Target: "container " + r.name, Service: sv.Name, Reason: "takes over the name", Name: r.name,
	}, removed)
	st.takes = r.name
	return st.on(r.made, r.id())
}

// handOverNames lets whatever takes a container name wait until the container that has it is gone.
func (pl *planner) handOverNames() error {
	holders := map[string]Container{}
	for _, c := range pl.have.Containers {
		holders[c.Name] = c
	}
	for _, s := range pl.steps {
		if s.takes == "" {
			continue
		}
		if free, ok := pl.freed[s.takes]; ok {
			s.need(free)
			continue
		}
		if c, taken := holders[s.takes]; taken && c.ID != s.Ref.ID {
			hint := "docker rm " + c.Name
			if slices.ContainsFunc(pl.orphans, func(o Container) bool { return o.ID == c.ID }) {
				hint = "dev up --remove-orphans"
			}
			return &planError{fmt.Sprintf("service %q wants the container name %q, which a container of service %q has", s.Service, s.takes, c.Service()), hint}
		}
	}
	return nil
}
