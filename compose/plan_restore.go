// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// NewRestorePlan says what replaces the content of volumes: the containers that mount them are removed, the volumes made anew and filled, the containers made
// again, with their anonymous volumes, and not started. contents names, by the volumes' keys, what to fill them with (see [Op.Content]).
func NewRestorePlan(p *types.Project, have Snapshot, contents map[string]string) (Plan, error) {
	for _, key := range slices.Sorted(maps.Keys(contents)) {
		if _, ok := p.Volumes[key]; !ok {
			return Plan{}, &planError{fmt.Sprintf("the project has no volume %q any more", key), "dev config --volumes"}
		}
	}
	scale := map[string]int{}
	for _, c := range have.Containers {
		for key := range contents {
			if managed(c) && !c.OneOff() && defined(p, c.Service()) && mountsVolume(c, p.Volumes[key].Name) {
				scale[c.Service()] = 0
			}
		}
	}
	for _, c := range have.Containers {
		if n, ok := scale[c.Service()]; ok && managed(c) && !c.OneOff() {
			scale[c.Service()] = n + 1
		}
	}
	services := slices.Sorted(maps.Keys(scale))
	for _, name := range services {
		if _, disabled := p.DisabledServices[name]; disabled {
			var err error
			if p, err = p.WithServicesEnabled(name); err != nil {
				return Plan{}, err
			}
		}
	}
	pl, err := newPlanner(p, have, PlanOptions{
		Services: services, NoDeps: true, NoStart: true, NoBuild: true, Pull: types.PullPolicyNever, IgnoreOrphans: true, ImagesReady: true, Scale: scale, RestoreVolumes: contents,
	})
	if err != nil {
		return Plan{}, err
	}
	if pl.idle = len(services) == 0; pl.idle {
		clear(pl.services)
	}
	return pl.plan()
}

// restore decides on a volume whose content is replaced. Only the project's own are.
func (pl *planner) restore(key, content string, state *volumeState) error {
	v := pl.p.Volumes[key]
	there := pl.have.Volumes[v.Name]
	switch {
	case bool(v.External):
		return &planError{fmt.Sprintf("volume %q is external: its content is not this project's to replace", v.Name), "remove `external: true` if it is"}
	case !state.missing && there.Labels[LabelProject] != pl.p.Name:
		return &planError{fmt.Sprintf("volume %q was not made by project %q: its content is not replaced", v.Name, pl.p.Name), "docker volume rm " + v.Name}
	}
	state.replaced, state.content = !state.missing, content
	return nil
}
