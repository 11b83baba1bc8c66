// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// hookPreStart is the value of LabelHook on the containers of pre_start hooks.
const hookPreStart = "pre_start"

// preStart makes the steps that run the service's pre_start hooks before a replica starts: each in a container of its own, one after the other, to the end.
// It returns the step after which the replica may start. A hook runs once for each start of the service, by the first of its replicas that starts while
// none runs; one with per_replica before each replica's start.
//
// A hook's container is removed when it has succeeded. One that failed is left for its output to be read, until the next attempt or `down`.
func (pl *planner) preStart(sv *service, r *replica) (*step, error) {
	if r.action == actionUnpause && r.bounce == "" {
		return nil, nil
	}
	var last *step
	for i, hook := range sv.PreStart {
		if !hook.PerReplica && !sv.leads(r) {
			continue
		}
		done, err := pl.emitHook(sv, r, i, last)
		if err != nil {
			return nil, err
		}
		last = done
	}
	return last, nil
}

// leads reports whether a replica is the one whose start is the service's.
func (sv *service) leads(r *replica) bool {
	for _, other := range sv.replicas {
		if other.action == actionKeep && other.bounce == "" {
			return false // the service runs
		}
	}
	return len(sv.replicas) > 0 && sv.replicas[0] == r
}

// hookName is the name of a hook's container.
func hookName(p *types.Project, s types.ServiceConfig, index, number int) string {
	parts := []string{p.Name, s.Name, hookPreStart, strconv.Itoa(index)}
	if s.PreStart[index].PerReplica {
		parts = append(parts, strconv.Itoa(number))
	}
	return strings.Join(parts, separator(p))
}

// hookService is the service that the container of a hook is made from. What a hook does not say itself, the loader has taken from the service.
func hookService(p *types.Project, s types.ServiceConfig, index int) types.ServiceConfig {
	h := types.ServiceConfig{Name: s.Name, ContainerSpec: s.PreStart[index].ContainerSpec}
	h.CustomLabels = maps.Clone(s.CustomLabels)
	if h.Image == "" {
		h.Image = ImageName(p, s)
	}
	h.CustomLabels = h.CustomLabels.Add(LabelHook, hookPreStart).Add(LabelHookIndex, strconv.Itoa(index))
	return h
}

// emitHook makes the steps of one hook, after before, and returns the one that tells its success.
func (pl *planner) emitHook(sv *service, r *replica, index int, before *step) (*step, error) {
	h := hookService(pl.p, sv.ServiceConfig, index)
	hsv := &service{ServiceConfig: h, deps: dependencies(h), rank: sv.rank, image: sv.image}
	if h.Image != ImageName(pl.p, sv.ServiceConfig) {
		hsv.image = pl.imageNamed(h.Image, "")
	}
	if hsv.image.id == "" && hsv.image.made == nil {
		return nil, pl.missingImage(hsv)
	}
	name := hookName(pl.p, sv.ServiceConfig, index, r.number)
	hr := &replica{name: name, action: actionCreate, reason: reason{text: fmt.Sprintf("pre_start of %s", r.name)}}
	in := ContainerInput{Name: name, ImageID: hsv.image.id, Services: map[string]Ref{}, Environment: pl.o.Environment}
	made, err := pl.createFrom(hsv, hr, in)
	if err != nil {
		return nil, err
	}
	made.need(before, r.named, r.made, r.stopped)
	pl.awaitDependencies(sv, made)
	fill := made.fill
	made.fill = func() error {
		if err := fill(); err != nil {
			return err
		}
		delete(made.Container.Config.Labels, LabelConfigHash) // nothing to compare it with: each start has one of its own
		delete(made.Container.Config.Labels, LabelServiceConfig)
		made.Container.Host.VolumesFrom = append(made.Container.Host.VolumesFrom, r.name) // with its anonymous volumes
		return nil
	}
	if i := slices.IndexFunc(pl.have.Containers, func(c Container) bool { return c.Name == name }); i >= 0 {
		made.need(pl.discard(pl.have.Containers[i], types.ServiceConfig{}, discardOptions{timeout: pl.o.Timeout, why: "left over from a hook that failed"}))
	}
	return pl.runHookContainer(sv, h, name, made)
}

// runHookContainer starts the container of a hook, waits for its success and removes it.
func (pl *planner) runHookContainer(sv *service, h types.ServiceConfig, name string, made *step) (*step, error) {
	op := func(kind OpKind, reason string) Op {
		return Op{Kind: kind, Target: "container " + name, Service: sv.Name, Reason: reason}
	}
	files, err := conversion{p: pl.p, s: h}.files()
	if err != nil {
		return nil, located(pl.p, err)
	}
	ready := made
	if len(files) > 0 {
		copied := op(OpCopyFiles, "its configs and secrets")
		copied.Files = files
		ready = pl.add(copied).on(made, "")
	}
	started := pl.add(op(OpStartContainer, "pre_start"), ready).on(made, "")
	await := op(OpAwait, "pre_start of "+sv.Name)
	await.Condition = ConditionCompleted
	done := pl.add(await, started).on(made, "")
	remove := op(OpRemoveContainer, "pre_start has succeeded")
	remove.Force, remove.BestEffort = true, true
	pl.add(remove, done).on(made, "")
	return done, nil
}
