// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// Plan is what must be done to get from a snapshot to what is wanted: data, deterministic for the same input, made without any call.
type Plan struct {
	// Ops are the operations in an order in which they could be carried out one after the other.
	Ops []Op
	// Provisional names the services that have containers and whose image this plan pulls or builds: the plan takes the image for
	// unchanged. Apply [Plan.Images], observe again, and plan with ImagesReady to know better.
	Provisional []string
	// DivergedVolumes are the keys of volumes that exist with another configuration than the Compose files'. They are kept; to recreate them
	// loses their data and is done only for those that PlanOptions.RecreateVolumes names.
	DivergedVolumes []string
	Warnings        []Warning
}

// PlanOptions are the flags of `up`, `create`, `scale` and `plan`.
type PlanOptions struct {
	// Services are the services named by the user; they and, without NoDeps, all they depend on are planned for. Empty: all.
	Services []string
	NoDeps   bool
	// ForceRecreate recreates the named services' containers, AlwaysRecreateDeps those of the services they depend on.
	ForceRecreate, AlwaysRecreateDeps bool
	// NoRecreate keeps containers whatever has changed.
	NoRecreate bool
	// RenewAnonVolumes recreates the named services' containers with new anonymous volumes. The old ones are left alone.
	RenewAnonVolumes bool
	// RemoveOrphans removes the containers of services the project no longer has; IgnoreOrphans does not even warn of them.
	RemoveOrphans, IgnoreOrphans bool
	// NoStart makes containers without starting any.
	NoStart bool
	// Wait ends the plan with waiting for all services to be running, healthy or successfully completed.
	Wait bool
	// Build builds every planned service that has a build section; NoBuild none, whatever is missing.
	Build, NoBuild bool
	// Pull replaces every service's pull_policy: always, missing, never, …; empty: keep it.
	Pull string
	// Scale replaces numbers of replicas, by service.
	Scale map[string]int
	// Timeout is the grace period of stops, in place of the containers' own; 0 kills at once.
	Timeout *time.Duration
	// ImagesReady says that the snapshot has all images as they should be: nothing is pulled or built.
	ImagesReady bool
	// BuildOptions are used for the builds of the plan.
	BuildOptions BuildOptions
	// Environment holds defaults for containers' variables: see [ContainerInput].
	Environment map[string]string
	// RecreateVolumes names, by key, diverged volumes to remove and make anew: their data is lost.
	RecreateVolumes []string
	// RestoreVolumes gives, by key, the content (see [Op.Content]) that volumes are made anew with: what they hold now is replaced.
	RestoreVolumes map[string]string
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Ops) == 0 }

// Destructive lists the operations that lose something that cannot be made again.
func (p Plan) Destructive() []Op {
	var lost []Op
	for _, op := range p.Ops {
		if op.Destructive {
			lost = append(lost, op)
		}
	}
	return lost
}

// Images is the part of the plan that pulls and builds images. It can be applied alone.
func (p Plan) Images() Plan {
	renumbered := map[int]int{0: 0}
	var images Plan
	number := func(old []int) (list []int) {
		for _, id := range old {
			if n := renumbered[id]; n != 0 {
				list = append(list, n)
			}
		}
		return list
	}
	for _, op := range p.Ops {
		if op.Kind != OpPullImage && op.Kind != OpBuildImage {
			continue
		}
		renumbered[op.ID] = len(images.Ops) + 1
		op.ID = renumbered[op.ID]
		op.Needs, op.After, op.Fallback = number(op.Needs), number(op.After), renumbered[op.Fallback]
		images.Ops = append(images.Ops, op)
	}
	return images
}

// String writes one line per operation: [what it needs] -> #id kind target: reason; the changed fields below it, indented. "~3" is an operation that must
// have ended, "!3" one that must have failed.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p.Ops {
		fmt.Fprintf(&b, "[%s] -> #%d %s", op.edges(), op.ID, op)
		if op.Reason != "" {
			b.WriteString(": " + op.Reason)
		}
		if op.Destructive {
			b.WriteString(" (loses data)")
		}
		if op.BestEffort {
			b.WriteString(" (best effort)")
		}
		b.WriteByte('\n')
		for _, c := range op.Changes {
			b.WriteString("    " + c.String() + "\n")
		}
	}
	for _, name := range p.Provisional {
		fmt.Fprintf(&b, "? service %s is recreated if its image changes\n", name)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "! %s\n", w)
	}
	return b.String()
}

func (op Op) edges() string {
	var all []string
	for _, id := range op.Needs {
		all = append(all, fmt.Sprint(id))
	}
	for _, id := range op.After {
		all = append(all, fmt.Sprintf("~%d", id))
	}
	if op.Fallback != 0 {
		all = append(all, fmt.Sprintf("!%d", op.Fallback))
	}
	return strings.Join(all, " ")
}

// String names the operation in a phrase: "create container app-web-1", "await container app-db-1: service_healthy".
func (op Op) String() string {
	kind, target := string(op.Kind), op.Target
	switch op.Kind {
	case OpCopyFiles:
		return kind + " to " + target
	case OpRunHook:
		return kind + " in " + target
	case OpAwait:
		return kind + " " + target + " " + string(op.Condition)
	}
	_, object, _ := strings.Cut(kind, " ")
	return kind + strings.TrimPrefix(target, object)
}

// String gives the change as field: old → new.
func (c Change) String() string {
	switch {
	case !c.OldSet:
		return fmt.Sprintf("%s: + %s", c.Field, c.New)
	case !c.NewSet:
		return fmt.Sprintf("%s: - %s", c.Field, c.Old)
	}
	return fmt.Sprintf("%s: %s → %s", c.Field, c.Old, c.New)
}

// NewPlan says what `up` has to do to make the snapshot what the project wants. It makes no call and changes neither argument.
func NewPlan(p *types.Project, have Snapshot, o PlanOptions) (Plan, error) {
	pl, err := newPlanner(p, have, o)
	if err != nil {
		return Plan{}, err
	}
	return pl.plan()
}

// planner holds what is found out on the way to one plan.
type planner struct {
	p    *types.Project
	have Snapshot
	o    PlanOptions
	graph

	order    []string            // all services of the project, what is depended on first
	services map[string]*service // the planned ones
	byName   map[string][]Container
	orphans  []Container
	images   map[imageKey]*image
	networks map[string]*networkState
	volumes  map[string]*volumeState
	freed    map[string]*step // by container name: the step after which it is free
	awaits   map[awaitKey]*step
	oneShots map[string]bool // services that another waits for to complete

	dependentsOf map[string][]*service // see dependents

	lastRange *step       // the last start so far that publishes a range of ports
	idle      bool        // no service is planned for
	run       *RunOptions // a one-off is wanted of this service, rather than its replicas

	result Plan
}

// Ranks order the operations of a plan for the reader: images, networks, volumes and leftovers, then service by service.
const (
	rankImages = iota
	rankNetworks
	rankVolumes
	rankOrphans
	rankServices
)

func newPlanner(p *types.Project, have Snapshot, o PlanOptions) (*planner, error) {
	pl := &planner{
		p: p, have: have, o: o,
		services: map[string]*service{}, byName: map[string][]Container{},
		images: map[imageKey]*image{}, networks: map[string]*networkState{}, volumes: map[string]*volumeState{},
		freed: map[string]*step{}, awaits: map[awaitKey]*step{}, oneShots: map[string]bool{},
	}
	if err := p.CheckContainerNameUnicity(); err != nil {
		return nil, err
	}
	var err error
	if pl.order, err = dependencyOrder(p); err != nil {
		return nil, err
	}
	for _, s := range p.Services {
		for name, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				pl.oneShots[name] = true
			}
		}
	}
	pl.sortContainers()
	return pl, pl.selectServices()
}

// sortContainers files the observed containers under their services, or as orphans.
func (pl *planner) sortContainers() {
	for _, c := range pl.have.Containers {
		switch {
		case !managed(c) || c.OneOff():
		case !defined(pl.p, c.Service()):
			pl.orphans = append(pl.orphans, c)
		default:
			pl.byName[c.Service()] = append(pl.byName[c.Service()], c)
		}
	}
}

// plan goes through all of it: what is wanted, what is to be done about each container, in which order.
func (pl *planner) plan() (Plan, error) {
	phases := []func() error{
		pl.check, pl.planImages, pl.planNetworks, pl.planVolumes, pl.decideAll, pl.planOrphans,
		pl.emitNetworks, pl.emitVolumes, pl.emitContainers, pl.emitStarts, pl.emitRun, pl.handOverNames, pl.emitWaits,
	}
	for _, phase := range phases {
		if err := phase(); err != nil {
			return Plan{}, err
		}
	}
	var err error
	if pl.result.Ops, err = pl.ops(); err != nil {
		return Plan{}, err
	}
	slices.Sort(pl.result.Provisional)
	slices.SortStableFunc(pl.result.Warnings, func(a, b Warning) int { return strings.Compare(a.Service+"\x00"+a.Text, b.Service+"\x00"+b.Text) })
	return pl.result, nil
}

// check refuses what the planned services ask for and cannot get, and warns of what has no effect.
func (pl *planner) check() error {
	planned := *pl.p
	planned.Services = types.Services{}
	for name, sv := range pl.services {
		planned.Services[name] = sv.ServiceConfig
	}
	if err := Check(&planned); err != nil {
		return err
	}
	pl.result.Warnings = append(pl.result.Warnings, Unsupported(&planned)...)
	return nil
}

func (pl *planner) warn(service, format string, args ...any) {
	pl.result.Warnings = append(pl.result.Warnings, Warning{Service: service, Text: fmt.Sprintf(format, args...)})
}

// planError is a plan that cannot be made, with the next step for the user.
type planError struct{ text, hint string }

func (e *planError) Error() string { return e.text }

// Hint names the next step.
func (e *planError) Hint() string { return e.hint }

// managed reports whether Compose made the container, docker compose or this: others that carry a project's label are let alone.
func managed(c Container) bool {
	_, ok := c.Labels[LabelConfigHash]
	return ok
}

// defined reports whether the project has the service, enabled or not.
func defined(p *types.Project, name string) bool {
	if _, ok := p.Services[name]; ok {
		return true
	}
	_, ok := p.DisabledServices[name]
	return ok
}
