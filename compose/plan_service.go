// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// action is what happens to one replica.
type action int

const (
	actionKeep     action = iota
	actionStart           // it is there, unchanged, and does not run
	actionUnpause         // it is there, unchanged, and paused
	actionCreate          // it is not there
	actionRecreate        // another container takes its place
)

// replica is one container that a service shall have.
type replica struct {
	number int
	name   string     // the name it shall have
	old    *Container // what stands for it now, if anything does
	next   *Container // its successor, half-made by a plan that was interrupted
	action action
	reason reason
	bounce string // why it is stopped before and started after what it depends on; empty: it is not

	// The steps that bring it about; nil: nothing to do.
	made, stopped, removed, named, started *step
}

// reason says why a container is not let alone; the zero reason lets it.
type reason struct {
	text    string
	changes []Change
}

// leftover is a container that a service does not need.
type leftover struct {
	Container
	why string
}

// runs reports whether the container that stands for the replica occupies its ports and namespaces.
func (r *replica) runs() bool { return r.old != nil && running(*r.old) }

// created reports whether another container than now will stand for the replica.
func (r *replica) created() bool { return r.action == actionCreate || r.action == actionRecreate }

// id is the container that will stand for the replica, when it exists already.
func (r *replica) id() string {
	switch {
	case r.next != nil:
		return r.next.ID
	case r.action == actionKeep, r.action == actionStart, r.action == actionUnpause:
		return r.old.ID
	}
	return ""
}

func running(c Container) bool {
	return c.State == StateRunning || c.State == StatePaused || c.State == StateRestarting
}

// decideAll decides for each replica of each service. What is depended on comes first, since its fate decides that of its dependents.
func (pl *planner) decideAll() error {
	for _, sv := range pl.planned() {
		if pl.leaveAlone(sv) {
			continue
		}
		if err := pl.decide(sv); err != nil {
			return err
		}
	}
	if pl.o.NoDeps || pl.o.NoStart {
		return nil
	}
	return pl.drag()
}

// bystanders reports whether anything runs of services that are not in the plan.
func (pl *planner) bystanders() bool {
	for name, containers := range pl.byName {
		if pl.services[name] == nil && slices.ContainsFunc(containers, running) {
			return true
		}
	}
	return false
}

// drag takes services into the plan that nobody asked for but whose running containers follow what is planned: they are stopped before and
// started after it, as they are. What they are is told by their labels, since the project may have been loaded without them.
func (pl *planner) drag() error {
	if !pl.bystanders() {
		return nil
	}
	there := projectFromLabels(pl.p.Name, pl.have)
	order, _ := dependencyOrder(there) // if the labels tell of a circle, nobody follows
	for _, name := range order {
		running := slices.DeleteFunc(slices.Clone(pl.byName[name]), func(c Container) bool { return !running(c) })
		if pl.services[name] != nil || len(running) == 0 {
			continue
		}
		s := there.Services[name]
		sv := &service{ServiceConfig: s, deps: dependencies(s), rank: rankServices + len(pl.order), dragged: true}
		for i, d := range sv.deps {
			sv.deps[i].Required = false // what its labels wait for may be out of date
			if x := pl.services[d.name]; x != nil && disturbs(d, x) != "" {
				pl.services[name] = sv
			}
		}
		if pl.services[name] == nil {
			continue
		}
		if !slices.Contains(pl.order, name) {
			pl.order = append(pl.order, name)
		}
		for _, c := range running {
			if err := pl.checkShared(c); err != nil {
				return err
			}
			pl.takeUp(sv, c)
		}
		pl.follow(sv)
		sv.bounced = true
	}
	return nil
}

// checkShared refuses to leave a container behind that uses a namespace or the volumes of one that is replaced: it must be replaced, too.
func (pl *planner) checkShared(c Container) error {
	was, _ := DecodeServiceConfig(c.Labels[LabelServiceConfig]) // of a container that docker compose made it is not known
	for _, name := range References(was) {
		if x := pl.services[name]; x != nil && x.first() != nil && x.first().created() {
			return &planError{
				fmt.Sprintf("service %q uses the container of service %q, which is recreated, and must be recreated with it", c.Service(), name),
				fmt.Sprintf("dev up %s %s", name, c.Service()),
			}
		}
	}
	return nil
}

// decide settles what happens to the containers of one service.
func (pl *planner) decide(sv *service) error {
	var err error
	if sv.files, err = FilesLabel(pl.p, sv.ServiceConfig); err != nil {
		return located(pl.p, err)
	}
	if err := pl.expectedHash(sv); err != nil {
		return err
	}
	var groups []*replica
	for _, c := range pl.byName[sv.Name] {
		groups = pl.file(sv, groups, c)
	}
	for _, r := range groups {
		pl.settle(sv, r)
	}
	pl.scale(sv, groups)
	pl.follow(sv)
	for _, r := range sv.replicas {
		sv.recreated = sv.recreated || r.action == actionRecreate
		sv.bounced = sv.bounced || r.bounce != ""
		pl.warnOfState(sv, r)
	}
	pl.noteProvisional(sv)
	return nil
}

// file puts a container among the replicas by its number: as the one that stands for it, as a half-made successor, or as a leftover.
// The best candidate stands for the replica: one that is up to date, has its proper name, runs.
func (pl *planner) file(sv *service, groups []*replica, c Container) []*replica {
	n, _ := strconv.Atoi(c.Labels[LabelContainerNumber])
	if n < 1 || sv.ContainerName != "" {
		n = 1
	}
	i := slices.IndexFunc(groups, func(r *replica) bool { return r.number == n })
	if i < 0 {
		return append(groups, &replica{number: n, name: ContainerName(pl.p, sv.ServiceConfig, n), old: &c, reason: pl.assess(sv, c)})
	}
	r := groups[i]
	other := c
	if pl.better(sv, r, c) {
		other, r.old, r.reason = *r.old, &c, pl.assess(sv, c)
	}
	pl.fileOther(sv, r, other)
	return groups
}

func (pl *planner) fileOther(sv *service, r *replica, other Container) {
	why := fmt.Sprintf("second container number %d", r.number)
	if temporaryName(other.Name, r.name) {
		why = "left over from an interrupted recreation"
	}
	sv.surplus = append(sv.surplus, leftover{other, why})
}

// better reports whether c rather than what stands for the replica now should.
func (pl *planner) better(sv *service, r *replica, c Container) bool {
	score := func(c Container) int {
		n := 0
		for i, good := range []bool{running(c), c.Name == r.name, pl.assess(sv, c).text == "", usable(c)} {
			if good {
				n |= 1 << i
			}
		}
		return n
	}
	return cmp.Or(cmp.Compare(score(c), score(*r.old)), c.Created.Compare(r.old.Created), strings.Compare(r.old.ID, c.ID)) > 0
}

// usable reports whether the engine can start, or has started, the container.
func usable(c Container) bool { return c.State != StateDead && c.State != StateRemoving }

// settle decides about a replica that has a container.
func (pl *planner) settle(sv *service, r *replica) {
	r.action = actionKeep
	switch {
	case r.reason.text != "":
		r.action = actionRecreate
	case r.old.State == StatePaused:
		r.action, r.reason.text = actionUnpause, "paused"
	case r.old.State == StateCreated:
		r.action, r.reason.text = actionStart, "created but never started"
	case r.old.State == StateExited && !pl.done(sv, *r.old):
		r.action, r.reason.text = actionStart, fmt.Sprintf("exited (%d)", r.old.ExitCode)
	}
	if r.action != actionRecreate {
		pl.adopt(sv, r)
	}
}

// done reports whether the container is a one-shot that another service waits for to complete, and that has. It is not run again while its
// configuration and image are the same.
func (pl *planner) done(sv *service, c Container) bool {
	return pl.oneShots[sv.Name] && c.State == StateExited && c.ExitCode == 0
}

// adopt completes what an interrupted recreation began: the replica's new container exists under its temporary name, the one that it
// replaces may still be there under the proper name.
func (pl *planner) adopt(sv *service, r *replica) {
	if !temporaryName(r.old.Name, r.name) {
		return
	}
	if r.reason.text == "" {
		r.reason.text = "recreation was interrupted"
	}
	i := slices.IndexFunc(sv.surplus, func(l leftover) bool { return l.Name == r.name })
	if i < 0 {
		return
	}
	r.next, r.old = r.old, &sv.surplus[i].Container
	r.action, r.reason.text = actionRecreate, "recreation was interrupted"
	old := *r.old
	r.old = &old
	sv.surplus = slices.Delete(sv.surplus, i, i+1)
}

// scale picks the replicas to keep, at most as many as wanted: those that need no recreation and those of low numbers first. It adds
// new ones under the lowest free numbers.
func (pl *planner) scale(sv *service, groups []*replica) {
	want := sv.GetScale()
	slices.SortFunc(groups, func(a, b *replica) int {
		return cmp.Or(compareBool(a.diverged(), b.diverged()), cmp.Compare(a.number, b.number))
	})
	for i, r := range groups {
		if i < want {
			sv.replicas = append(sv.replicas, r)
			continue
		}
		sv.surplus = append(sv.surplus, leftover{*r.old, fmt.Sprintf("scaled to %d", want)})
		if r.next != nil {
			sv.surplus = append(sv.surplus, leftover{*r.next, fmt.Sprintf("scaled to %d", want)})
		}
	}
	for n := 1; len(sv.replicas) < want; n++ {
		if !slices.ContainsFunc(sv.replicas, func(r *replica) bool { return r.number == n }) {
			name := ContainerName(pl.p, sv.ServiceConfig, n)
			sv.replicas = append(sv.replicas, &replica{number: n, name: name, action: actionCreate, reason: reason{text: "not there"}})
		}
	}
	slices.SortFunc(sv.replicas, func(a, b *replica) int { return cmp.Compare(a.number, b.number) })
	slices.SortFunc(sv.surplus, func(a, b leftover) int { return strings.Compare(a.Name, b.Name) })
}

// diverged reports whether the replica's configuration is not the wanted one; a successor that exists already has it.
func (r *replica) diverged() bool { return r.action == actionRecreate && r.next == nil }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// follow makes running replicas stop before, and start after, a dependency that is replaced.
func (pl *planner) follow(sv *service) {
	if pl.o.NoStart {
		return
	}
	for _, d := range sv.deps {
		x, ok := pl.services[d.name]
		if !ok {
			continue
		}
		why := disturbs(d, x)
		for _, r := range sv.replicas {
			if r.runs() && r.bounce == "" {
				r.bounce = why
			}
		}
	}
}

// disturbs says why the dependents of x by d cannot go on running through what happens to x; empty: they can.
func disturbs(d dependency, x *service) string {
	switch {
	case d.follows() && x.recreated:
		return fmt.Sprintf("its dependency %s is recreated", d.name)
	case d.follows() && x.bounced:
		return fmt.Sprintf("its dependency %s is restarted", d.name)
	case d.shares && x.first() != nil && x.first().action == actionStart:
		return fmt.Sprintf("it shares a namespace with %s, which is started", d.name)
	}
	return ""
}

// first is the replica whose container stands for the service in network_mode, ipc, pid and volumes_from: the first by name, as docker
// compose has it.
func (sv *service) first() *replica {
	if len(sv.replicas) == 0 {
		return nil
	}
	return slices.MinFunc(sv.replicas, func(a, b *replica) int { return strings.Compare(a.name, b.name) })
}

// warnOfState tells of containers that the plan lets alone although something is wrong with them.
func (pl *planner) warnOfState(sv *service, r *replica) {
	if r.action != actionKeep || r.bounce != "" {
		return
	}
	switch {
	case r.old.State == StateRestarting:
		pl.warn(sv.Name, "container %s is restarting again and again: see dev why %s", r.old.Name, sv.Name)
	case r.old.Health == HealthUnhealthy:
		pl.warn(sv.Name, "container %s is unhealthy: see dev why %s", r.old.Name, sv.Name)
	}
}

var temporaryPrefix = lazyregexp.New(`^[0-9a-f]{12}_`)

// temporaryName reports whether name is what a container is called until it takes over the name final.
func temporaryName(name, final string) bool {
	prefix := temporaryPrefix.Get().FindString(name)
	return prefix != "" && name[len(prefix):] == final
}

// assess says why a container of the service must be recreated, if it must.
func (pl *planner) assess(sv *service, c Container) reason {
	switch c.State {
	case StateDead:
		return reason{text: "it is dead"}
	case StateRemoving:
		return reason{text: "it is being removed"}
	}
	for _, check := range []func(*service, Container) reason{
		pl.assessSharing, pl.assessNetworksReplaced, pl.assessVolumesReplaced,
	} {
		if why := check(sv, c); why.text != "" {
			return why
		}
	}
	if pl.o.NoRecreate {
		return reason{}
	}
	for _, check := range []func(*service, Container) reason{
		pl.assessForce, pl.assessConfig, pl.assessFiles, pl.assessImage, pl.assessNetworks, pl.assessVolumes,
	} {
		if why := check(sv, c); why.text != "" {
			return why
		}
	}
	return reason{}
}

// assessSharing: a container that uses another's namespaces or volumes names it by ID.
func (pl *planner) assessSharing(sv *service, _ Container) reason {
	for _, d := range sv.deps {
		x, ok := pl.services[d.name]
		if ok && (d.shares || d.mounts) && x.first() != nil && x.first().created() {
			what := "a namespace of"
			if !d.shares {
				what = "the volumes of"
			}
			return reason{text: fmt.Sprintf("it uses %s service %s, which is recreated", what, d.name)}
		}
	}
	return reason{}
}

func (pl *planner) assessForce(sv *service, _ Container) reason {
	switch {
	case sv.named && pl.o.ForceRecreate:
		return reason{text: "recreation is forced"}
	case sv.named && pl.o.RenewAnonVolumes:
		return reason{text: "anonymous volumes are renewed"}
	case !sv.named && pl.o.AlwaysRecreateDeps:
		return reason{text: "recreation of dependencies is forced"}
	}
	return reason{}
}

// assessConfig compares configuration hashes and, when they differ, names the fields.
func (pl *planner) assessConfig(sv *service, c Container) reason {
	if c.Labels[LabelConfigHash] == sv.hash {
		return reason{}
	}
	label, ok := c.Labels[LabelServiceConfig]
	if !ok {
		return reason{text: "configuration changed (made by docker compose: fields not recorded)"}
	}
	was, err := DecodeServiceConfig(label)
	if err != nil {
		return reason{text: "configuration changed (its record is damaged)"}
	}
	changes := DiffServices(was, sv.ServiceConfig)
	if len(changes) == 0 && !slices.ContainsFunc(sv.deps, func(d dependency) bool { return d.shares || d.mounts }) {
		return reason{} // another version of the program hashes differently
	}
	if len(changes) == 0 {
		return reason{text: "the container whose namespace or volumes it uses was replaced"}
	}
	return reason{text: fieldsChanged(changes), changes: changes}
}

// fieldsChanged names up to three fields.
func fieldsChanged(changes []Change) string {
	var names []string
	for _, c := range changes {
		names = append(names, c.Field)
	}
	if more := len(names) - 3; more > 0 {
		return fmt.Sprintf("%s and %d more changed", strings.Join(names[:3], ", "), more)
	}
	return strings.Join(names, ", ") + " changed"
}

// assessFiles compares what the configuration hash does not cover: the content of configs and secrets.
func (pl *planner) assessFiles(sv *service, c Container) reason {
	changes := DiffFiles(c, sv.files)
	if len(changes) == 0 {
		return reason{}
	}
	return reason{text: fieldsChanged(changes), changes: changes}
}

func (pl *planner) assessImage(sv *service, c Container) reason {
	if sv.image == nil || sv.image.id == "" || sv.image.made != nil {
		return reason{}
	}
	was := c.Labels[LabelImage]
	if was == "" {
		was = c.ImageID
	}
	if was == sv.image.id {
		return reason{}
	}
	change := Change{Field: "image " + sv.image.name, Old: shortID(was), New: shortID(sv.image.id), OldSet: true, NewSet: true}
	return reason{text: "image changed", changes: []Change{change}}
}

// shortID shortens an image's or container's ID for the eye.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// expectedHash computes the configuration hash that the service's containers should carry. A container shared with another service is in it by ID, as
// docker compose has it, so there is none while such a container is yet to be made.
func (pl *planner) expectedHash(sv *service) error {
	shared := map[string]Ref{}
	for _, d := range sv.deps {
		if !d.shares && !d.mounts {
			continue
		}
		id, made, err := pl.sharedContainer(sv, d)
		if err != nil {
			return err
		}
		if made != nil {
			return nil
		}
		shared[d.name] = Ref{ID: id}
	}
	var err error
	sv.hash, err = ServiceHash(pl.p, WithContainers(sv.ServiceConfig, shared))
	return err
}

// sharedContainer finds the container of a dependency that the service uses the namespaces or volumes of: its ID, or the replica yet to be made.
func (pl *planner) sharedContainer(sv *service, d dependency) (string, *replica, error) {
	if x, ok := pl.services[d.name]; ok {
		r := x.first()
		if r == nil {
			return "", nil, fmt.Errorf("service %q uses the container of service %q, which is scaled to 0", sv.Name, d.name)
		}
		if id := r.id(); id != "" {
			return id, nil, nil
		}
		return "", r, nil
	}
	there := slices.DeleteFunc(slices.Clone(pl.byName[d.name]), func(c Container) bool { return !usable(c) })
	if len(there) == 0 {
		return "", nil, &planError{
			fmt.Sprintf("service %q uses the container of service %q, which has none", sv.Name, d.name), "dev up " + d.name,
		}
	}
	return slices.MinFunc(there, func(a, b Container) int { return strings.Compare(a.Name, b.Name) }).ID, nil, nil
}
