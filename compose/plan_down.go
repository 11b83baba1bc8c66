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

// DownOptions are the flags of `down`.
type DownOptions struct {
	// Services and those that depend on them are removed. Empty: the whole project, one-offs included.
	Services []string
	// RemoveOrphans removes the containers of services the project no longer has, too.
	RemoveOrphans bool
	// Volumes removes the project's volumes and its containers' anonymous ones: data is lost.
	Volumes bool
	// Images is which images to remove: empty for none, local for those built under no name of their own, all for all that services use.
	Images string
	// Timeout is the grace period of stops, in place of the containers' own; 0 kills at once.
	Timeout *time.Duration
}

// NewDownPlan says what removes a project: dependents before what they depend on, then networks, volumes and images. p is nil when there
// are no Compose files: the labels tell then.
func NewDownPlan(project string, p *types.Project, have Snapshot, o DownOptions) (Plan, error) {
	if !slices.Contains([]string{"", "local", "all"}, o.Images) {
		return Plan{}, &planError{fmt.Sprintf("cannot remove %q images", o.Images), "--rmi local, or --rmi all"}
	}
	v, err := newView(project, p, have)
	if err != nil {
		return Plan{}, err
	}
	services, err := v.selected(o.Services)
	if err != nil {
		return Plan{}, err
	}
	if len(o.Services) > 0 {
		services = v.dependents(services, func(dependency) bool { return true })
	}
	d := &downPlanner{view: v, have: have, o: o, removed: map[string][]*step{}, gone: map[string]*step{}}
	d.removeContainers(services)
	d.removeHooks(services)
	d.removeOthers()
	d.removeNetworks()
	if o.Volumes {
		d.removeVolumes()
	}
	d.removeImages(services)
	plan := Plan{Warnings: d.warnings}
	plan.Ops, err = d.ops()
	return plan, err
}

type downPlanner struct {
	*view
	graph
	have Snapshot
	o    DownOptions

	removed  map[string][]*step // by service
	gone     map[string]*step   // by container ID
	warnings []Warning
}

// removeContainers removes the services' containers, those of dependents first.
func (d *downPlanner) removeContainers(services []string) {
	for _, name := range slices.Backward(services) {
		var after []*step
		for _, other := range services {
			if slices.ContainsFunc(dependencies(d.service(other)), func(dep dependency) bool { return dep.name == name }) {
				after = append(after, d.removed[other]...)
			}
		}
		if s := d.p.Services[name]; s.Provider != nil { // those of profiles that are off are not asked
			d.removed[name] = []*step{d.endProvider(s, "down", after)}
			continue
		}
		containers := slices.Clone(d.containers[name])
		if len(d.o.Services) > 0 {
			for _, c := range d.oneOffs {
				if c.Service() == name {
					containers = append(containers, c)
				}
			}
		}
		for _, c := range containers {
			d.removed[name] = append(d.removed[name], d.removeContainer(c, d.service(name), "down", after))
		}
		if len(containers) == 0 {
			d.removed[name] = after // what it depends on still waits for its dependents
		}
	}
}

func (d *downPlanner) removeContainer(c Container, s types.ServiceConfig, why string, after []*step) *step {
	d.gone[c.ID] = d.discard(c, s, discardOptions{timeout: d.o.Timeout, why: why, volumes: d.o.Volumes, beforeStop: after})
	return d.gone[c.ID]
}

// removeOthers removes one-offs and, if asked for, orphans. Neither is in anybody's way.
func (d *downPlanner) removeOthers() {
	if len(d.o.Services) == 0 {
		for _, c := range d.oneOffs {
			d.removeContainer(c, d.service(c.Service()), "one-off", nil)
		}
	}
	if !d.o.RemoveOrphans {
		return
	}
	for _, c := range d.orphans {
		d.removeContainer(c, types.ServiceConfig{}, "orphan", nil)
	}
}

// removeHooks removes the containers that failed pre_start hooks of the services have left.
func (d *downPlanner) removeHooks(services []string) {
	for _, c := range d.have.Containers {
		if _, going := d.gone[c.ID]; !going && c.Labels[LabelHook] != "" && (len(d.o.Services) == 0 || slices.Contains(services, c.Service())) {
			d.removeContainer(c, types.ServiceConfig{}, "left over from a hook", nil)
		}
	}
}

// using splits the containers that uses tells of into the steps that remove them and the names of those that stay.
func (d *downPlanner) using(uses func(Container) bool) (removed []*step, staying []string) {
	for _, c := range d.have.Containers {
		if !uses(c) {
			continue
		}
		if step, ok := d.gone[c.ID]; ok {
			removed = append(removed, step)
		} else {
			staying = append(staying, c.Name)
		}
	}
	return removed, staying
}

// stays tells the user why something is not removed, unless it was to be expected as only some services are.
func (d *downPlanner) stays(what string, users []string) {
	if len(d.o.Services) == 0 {
		d.warnings = append(d.warnings, Warning{Text: fmt.Sprintf("%s stays, as it is used by %s", what, strings.Join(users, ", "))})
	}
}

func (d *downPlanner) removeNetworks() {
	for _, name := range slices.Sorted(maps.Keys(d.have.Networks)) {
		n := d.have.Networks[name]
		if n.Labels[LabelProject] != d.p.Name {
			continue
		}
		removed, users := d.using(func(c Container) bool { return attached(c, name) && (running(c) || d.gone[c.ID] != nil) })
		if len(users) > 0 {
			d.stays("network "+name, users)
			continue
		}
		if len(d.o.Services) > 0 && len(removed) == 0 {
			continue
		}
		d.add(Op{Kind: OpRemoveNetwork, Target: "network " + name, Reason: "down", Ref: Ref{ID: n.ID}, BestEffort: true}, removed...)
	}
}

// removeVolumes removes what the Compose files name, or all of the project's volumes when there are none. One that carries no label of the
// project is not the project's to remove.
func (d *downPlanner) removeVolumes() {
	for _, key := range slices.Sorted(maps.Keys(d.p.Volumes)) {
		v := d.p.Volumes[key]
		there, ok := d.have.Volumes[v.Name]
		if !ok || bool(v.External) {
			continue
		}
		if there.Labels[LabelProject] != d.p.Name {
			d.warnings = append(d.warnings, Warning{Text: fmt.Sprintf("volume %s stays, as it was not made by this project", v.Name)})
			continue
		}
		removed, users := d.using(func(c Container) bool { return mountsVolume(c, v.Name) })
		if len(users) > 0 {
			d.stays("volume "+v.Name, users)
			continue
		}
		d.add(Op{
			Kind: OpRemoveVolume, Target: "volume " + v.Name, Reason: "down --volumes", Destructive: true, Ref: Ref{ID: v.Name},
		}, removed...)
	}
}

func (d *downPlanner) removeImages(services []string) {
	refs := map[string]bool{}
	for _, name := range services {
		s := d.service(name)
		built := s.Image == "" || s.Image == ImageName(d.p, types.ServiceConfig{Name: name})
		ref := ImageName(d.p, s)
		_, there := d.have.Images[ref]
		if (d.o.Images == "all" || d.o.Images == "local" && built) && (there || !d.files) {
			refs[ref] = true
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		var removed []*step
		for _, c := range d.have.Containers {
			removed = append(removed, d.gone[c.ID])
		}
		d.add(Op{
			Kind: OpRemoveImage, Target: "image " + ref, Reason: "down --rmi " + d.o.Images, Image: &ImageSpec{Ref: ref}, BestEffort: true,
		}, removed...)
	}
}
