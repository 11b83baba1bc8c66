// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// view is what commands other than up see: a project, read from its Compose files or, without any, from the labels of what it left in the
// engine, and its containers by service.
type view struct {
	p          *types.Project
	files      bool // there are Compose files
	order      []string
	containers map[string][]Container
	oneOffs    []Container
	orphans    []Container // of services the project does not have
}

// newView sorts the snapshot. p is nil when there are no Compose files.
func newView(project string, p *types.Project, have Snapshot) (*view, error) {
	v := &view{p: p, files: p != nil, containers: map[string][]Container{}}
	if p == nil {
		v.p = projectFromLabels(project, have)
	}
	var err error
	if v.order, err = dependencyOrder(v.p); err != nil {
		return nil, err
	}
	for _, c := range have.Containers {
		switch {
		case !managed(c):
		case c.OneOff():
			v.oneOffs = append(v.oneOffs, c)
		case !defined(v.p, c.Service()):
			v.orphans = append(v.orphans, c)
		default:
			v.containers[c.Service()] = append(v.containers[c.Service()], c)
		}
	}
	return v, nil
}

// service gives the configuration of a service, disabled ones included.
func (v *view) service(name string) types.ServiceConfig {
	s, ok := v.p.Services[name]
	if !ok {
		s = v.p.DisabledServices[name]
	}
	s.Name = name
	return s
}

// names lists the services in dependency order, those disabled last: their containers may be there all the same.
func (v *view) names() []string { return slices.Concat(v.order, v.p.DisabledServiceNames()) }

// selected lists the named services in dependency order, all when none is named. Without Compose files a name that is not known is let pass:
// its containers may have been removed already.
func (v *view) selected(names []string) ([]string, error) {
	if len(names) == 0 {
		return v.names(), nil
	}
	for _, name := range names {
		if !defined(v.p, name) && v.files {
			return nil, enabled(v.p, name)
		}
	}
	return slices.DeleteFunc(v.names(), func(name string) bool { return !slices.Contains(names, name) }), nil
}

// dependents lists the named services and all that depend on them, through dependencies that follow accepts.
func (v *view) dependents(names []string, follow func(dependency) bool) []string {
	set := slices.Clone(names)
	for _, name := range v.order { // what is depended on comes first
		for _, d := range dependencies(v.p.Services[name]) {
			if slices.Contains(set, d.name) && follow(d) && !slices.Contains(set, name) {
				set = append(set, name)
			}
		}
	}
	return slices.DeleteFunc(v.names(), func(name string) bool { return !slices.Contains(set, name) })
}

// projectFromLabels rebuilds a project from what containers, networks and volumes say of themselves.
func projectFromLabels(name string, have Snapshot) *types.Project {
	p := &types.Project{Name: name, Services: types.Services{}, Networks: types.Networks{}, Volumes: types.Volumes{}}
	for _, c := range have.Containers {
		if c.OneOff() || !managed(c) {
			continue
		}
		s, ok := p.Services[c.Service()]
		if !ok {
			s = serviceFromLabels(c)
		}
		n := 1
		if ok {
			n = s.GetScale() + 1
		}
		s.SetScale(n)
		p.Services[s.Name] = s
	}
	for _, s := range p.Services {
		for dep := range s.DependsOn {
			if _, ok := p.Services[dep]; !ok {
				delete(s.DependsOn, dep)
			}
		}
	}
	for _, n := range have.Networks {
		if n.Labels[LabelProject] == name {
			p.Networks[n.Labels[LabelNetwork]] = types.NetworkConfig{Name: n.Name, Driver: n.Driver}
		}
	}
	for _, v := range have.Volumes {
		if v.Labels[LabelProject] == name {
			p.Volumes[v.Labels[LabelVolume]] = types.VolumeConfig{Name: v.Name, Driver: v.Driver}
		}
	}
	return p
}

// serviceFromLabels reads back the service that a container was made from: all of it when this program made it, else its image and what it
// depends on.
func serviceFromLabels(c Container) types.ServiceConfig {
	s, err := DecodeServiceConfig(c.Labels[LabelServiceConfig])
	if err != nil {
		s = types.ServiceConfig{}
	}
	s.Name, s.Provider, s.ContainerName = c.Service(), nil, ""
	if s.Image == "" {
		s.Image = c.Image
	}
	s.Scale, s.Deploy, s.Links, s.VolumesFrom, s.Configs, s.Secrets = nil, nil, nil, nil, nil, nil
	s.NetworkMode, s.Ipc, s.Pid = "", "", ""
	s.DependsOn = types.DependsOnConfig{}
	for entry := range strings.SplitSeq(c.Labels[LabelDependsOn], ",") {
		name, rest, _ := strings.Cut(entry, ":")
		if name == "" {
			continue
		}
		condition, restart, stated := strings.Cut(rest, ":")
		d := types.ServiceDependency{Condition: condition, Required: true}
		if d.Condition == "" {
			d.Condition = string(ConditionRunningOrHealthy)
		}
		d.Restart, _ = strconv.ParseBool(restart)
		d.Restart = d.Restart || !stated
		s.DependsOn[name] = d
	}
	return s
}
