// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// service is one service as the planner sees it.
type service struct {
	types.ServiceConfig
	rank int
	// named: by the user, or by default as nobody is. dragged: not asked for, but it follows what is.
	named, dragged bool
	deps           []dependency
	image          *image

	replicas []*replica
	surplus  []leftover

	recreated, bounced bool   // what dependents with restart: true follow
	hash               string // expected configuration hash; empty: a container it shares is yet to be made
	files              string // expected FilesLabel
}

// dependency is one service that another needs, by depends_on or because it shares something with it.
type dependency struct {
	types.ServiceDependency
	name   string
	shares bool // the network, ipc or pid namespace of its first container
	mounts bool // the volumes of its first container
}

// follows reports whether the dependent is stopped and started again, or recreated, when the dependency is replaced.
func (d dependency) follows() bool { return d.Restart || d.shares || d.mounts }

// dependencies lists what a service needs, by name.
func dependencies(s types.ServiceConfig) []dependency {
	all := map[string]dependency{}
	for name, d := range s.DependsOn {
		all[name] = dependency{ServiceDependency: d, name: name}
	}
	add := func(name string, restart bool, note func(*dependency)) {
		d, ok := all[name]
		if !ok {
			d = dependency{name: name, ServiceDependency: types.ServiceDependency{
				Condition: types.ServiceConditionStarted, Restart: restart, Required: true,
			}}
		}
		note(&d)
		all[name] = d
	}
	for _, mode := range []string{s.NetworkMode, s.Ipc, s.Pid} {
		if name, ok := strings.CutPrefix(mode, types.ServicePrefix); ok {
			add(name, true, func(d *dependency) { d.shares = true })
		}
	}
	for _, from := range s.VolumesFrom {
		if !strings.HasPrefix(from, types.ContainerPrefix) {
			name, _, _ := strings.Cut(from, ":")
			add(name, false, func(d *dependency) { d.mounts = true })
		}
	}
	for _, link := range s.Links {
		name, _, _ := strings.Cut(link, ":")
		add(name, true, func(*dependency) {})
	}
	sorted := make([]dependency, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, all[name])
	}
	return sorted
}

// dependencyOrder lists the project's services, what is depended on first, else by name. A circle is an error that names it.
func dependencyOrder(p *types.Project) ([]string, error) {
	var order, path []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if at := slices.Index(path, name); at >= 0 {
			return &planError{
				fmt.Sprintf("services depend on each other in a circle: %s", strings.Join(append(slices.Clone(path[at:]), name), " → ")),
				"take one of these out of depends_on, network_mode, ipc, pid, volumes_from or links",
			}
		}
		if seen[name] {
			return nil
		}
		path = append(path, name)
		for _, d := range dependencies(p.Services[name]) {
			if _, ok := p.Services[d.name]; !ok {
				continue // selectServices tells what is missing
			}
			if err := visit(d.name); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		seen[name] = true
		order = append(order, name)
		return nil
	}
	for _, name := range p.ServiceNames() {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// selectServices decides which services the plan is about.
func (pl *planner) selectServices() error {
	names := pl.o.Services
	if len(names) == 0 {
		names = pl.p.ServiceNames()
	}
	for _, name := range slices.Concat(names, slices.Sorted(maps.Keys(pl.o.Scale))) {
		if err := enabled(pl.p, name); err != nil {
			return err
		}
	}
	var add func(name string, named bool) error
	add = func(name string, named bool) error {
		if sv, ok := pl.services[name]; ok {
			sv.named = sv.named || named
			return nil
		}
		sv, err := pl.newService(name)
		if err != nil {
			return err
		}
		sv.named = named
		for _, d := range sv.deps {
			if pl.o.NoDeps {
				break
			}
			if _, ok := pl.p.Services[d.name]; ok {
				err = add(d.name, false)
			} else if d.Required {
				err = missingDependency(pl.p, name, d.name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := add(name, true); err != nil {
			return err
		}
	}
	return nil
}

// newService takes a service of the project into the plan.
func (pl *planner) newService(name string) (*service, error) {
	s := pl.p.Services[name]
	s.Name = name
	if n, ok := pl.o.Scale[name]; ok {
		if n < 0 {
			return nil, fmt.Errorf("service %q: cannot scale to %d", name, n)
		}
		s.Scale = &n
	}
	if s.ContainerName != "" && s.GetScale() > 1 {
		return nil, &planError{
			fmt.Sprintf("service %q: container_name %q allows one container, and %d are wanted", name, s.ContainerName, s.GetScale()),
			"remove container_name to scale the service",
		}
	}
	sv := &service{ServiceConfig: s, deps: dependencies(s), rank: rankServices + slices.Index(pl.order, name)}
	pl.services[name] = sv
	return sv, nil
}

// planned lists the services of the plan, what is depended on first.
func (pl *planner) planned() []*service {
	var list []*service
	for _, name := range pl.order {
		if sv, ok := pl.services[name]; ok {
			list = append(list, sv)
		}
	}
	return list
}

// enabled returns an error unless the project has the service and it is enabled.
func enabled(p *types.Project, name string) error {
	if _, ok := p.Services[name]; ok {
		return nil
	}
	if s, ok := p.DisabledServices[name]; ok {
		return &planError{fmt.Sprintf("service %q is disabled: it is in the profiles %s", name, strings.Join(s.Profiles, ", ")), profileHint(s)}
	}
	return &planError{fmt.Sprintf("no such service: %q", name), "dev config --services"}
}

func missingDependency(p *types.Project, name, dep string) error {
	if s, ok := p.DisabledServices[dep]; ok {
		return &planError{
			fmt.Sprintf("service %q depends on %q, which is disabled: it is in the profiles %s", name, dep, strings.Join(s.Profiles, ", ")),
			profileHint(s),
		}
	}
	return &planError{fmt.Sprintf("service %q depends on %q, which the project does not have", name, dep), "dev config --services"}
}

func profileHint(s types.ServiceConfig) string {
	if len(s.Profiles) == 0 {
		return "dev config --services"
	}
	return "add --profile " + s.Profiles[0]
}
