// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// QueryFor is what must be observed to plan for a project. Without one of its services naming an image of a limited age, it costs an engine a number of
// calls that does not grow with the project.
func QueryFor(p *types.Project) Query {
	q := Query{Project: p.Name}
	for _, n := range p.Networks {
		q.Networks = append(q.Networks, n.Name)
	}
	for _, v := range p.Volumes {
		q.Volumes = append(q.Volumes, v.Name)
	}
	images, aged, particular := map[string]bool{}, map[string]bool{}, map[string]bool{}
	add := func(s types.ServiceConfig) {
		if s.Provider != nil {
			return
		}
		name := ImageName(p, s)
		images[name] = true
		if policy, _, err := s.GetPullPolicy(); err == nil && policy == types.PullPolicyRefresh {
			aged[name], particular[name] = true, true
		}
		if Platform(p, s) != "" {
			particular[name] = true
		}
		for _, ref := range imageMounts(s) {
			images[ref] = true
		}
	}
	for name, s := range p.Services {
		s.Name = name
		add(s)
		for _, used := range BuildNeeds(s) {
			if other, ok := p.DisabledServices[used]; ok {
				other.Name = used
				add(other)
			}
		}
	}
	slices.Sort(q.Networks)
	slices.Sort(q.Volumes)
	q.Images, q.Tagged = slices.Sorted(maps.Keys(images)), slices.Sorted(maps.Keys(aged))
	for _, name := range q.Images {
		if !particular[name] {
			q.IDOnly = append(q.IDOnly, name)
		}
	}
	return q
}
