// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Variables are what a provider wants the services that depend on its own to have in their environment.
type Variables struct {
	// Prefixed get the service's name in upper case and an underscore before theirs; Raw are taken as they are.
	Prefixed, Raw map[string]string
}

// Providers lists the services that are run by an external program, among the named ones (all if none are named) and what they depend on; what is
// depended on comes first.
func Providers(p *types.Project, names []string, noDeps bool) ([]types.ServiceConfig, error) {
	if !hasProviders(p) {
		return nil, nil
	}
	order, err := dependencyOrder(p)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	var want func(name string)
	want = func(name string) {
		s, ok := p.Services[name]
		if wanted[name] || !ok {
			return
		}
		wanted[name] = true
		if !noDeps {
			for _, d := range dependencies(s) {
				want(d.name)
			}
		}
	}
	if len(names) == 0 {
		names = p.ServiceNames()
	}
	for _, name := range names {
		want(name)
	}
	var found []types.ServiceConfig
	for _, name := range order {
		if s := p.Services[name]; wanted[name] && s.Provider != nil {
			found = append(found, s)
		}
	}
	return found, nil
}

func hasProviders(p *types.Project) bool {
	for _, s := range p.Services {
		if s.Provider != nil {
			return true
		}
	}
	return false
}

// NeededBy lists the services with containers that a service depends on, itself not among them. The project need not have it any more.
func NeededBy(p *types.Project, s types.ServiceConfig) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.DependsOn)), func(name string) bool {
		needed, ok := p.Services[name]
		return !ok || needed.Provider != nil
	})
}

// WithoutProviders returns the project without the services that external programs run. Services that depend on one depend on it no more, and get
// the variables that it gave.
func WithoutProviders(p *types.Project, given map[string]Variables) *types.Project {
	if !hasProviders(p) {
		return p
	}
	q := *p
	q.Services = types.Services{}
	for name, s := range p.Services {
		if s.Provider != nil {
			continue
		}
		s.DependsOn, s.Environment = maps.Clone(s.DependsOn), maps.Clone(s.Environment)
		for _, dep := range slices.Sorted(maps.Keys(s.DependsOn)) {
			if p.Services[dep].Provider == nil {
				continue
			}
			delete(s.DependsOn, dep)
			for key, value := range given[dep].Prefixed {
				setVariable(&s.ContainerSpec, strings.ToUpper(dep)+"_"+key, value)
			}
			for key, value := range given[dep].Raw {
				setVariable(&s.ContainerSpec, key, value)
			}
		}
		q.Services[name] = s
	}
	return &q
}

func setVariable(s *types.ContainerSpec, name, value string) {
	if s.Environment == nil {
		s.Environment = types.MappingWithEquals{}
	}
	s.Environment[name] = &value
}

// withSpecs returns the project with change applied to what its containers are made from: the services and their pre_start hooks. Their environment
// may be changed in place.
func withSpecs(p *types.Project, change func(*types.ContainerSpec)) *types.Project {
	q := *p
	q.Services = maps.Clone(p.Services)
	for name, s := range q.Services {
		s.Environment = maps.Clone(s.Environment)
		change(&s.ContainerSpec)
		s.PreStart = slices.Clone(s.PreStart)
		for i := range s.PreStart {
			hook := &s.PreStart[i]
			hook.Environment = maps.Clone(hook.Environment)
			change(&hook.ContainerSpec)
		}
		q.Services[name] = s
	}
	return &q
}

// The places of the engine's socket and of the credentials in a container with use_api_socket, as docker compose has them.
const (
	apiSocket        = "/var/run/docker.sock"
	apiConfigKey     = "#apisocket"
	apiConfigDir     = "/run/secrets/docker"
	apiConfigDirName = "DOCKER_CONFIG"
)

// UsesAPISocket reports whether a service of the project has use_api_socket.
func UsesAPISocket(p *types.Project) bool {
	for _, s := range p.Services {
		if s.UseAPISocket {
			return true
		}
	}
	return false
}

// WithAPISocket returns the project with what use_api_socket stands for written out: socket, a path on the engine's host, is mounted where clients look
// for it, and credentials, a docker config.json, are put where DOCKER_CONFIG says, unless the service sets that itself.
func WithAPISocket(p *types.Project, socket, credentials string) *types.Project {
	q := withSpecs(p, func(s *types.ContainerSpec) {
		if !s.UseAPISocket {
			return
		}
		s.Volumes = append(slices.Clone(s.Volumes), types.ServiceVolumeConfig{Type: types.VolumeTypeBind, Source: socket, Target: apiSocket})
		if _, set := s.Environment[apiConfigDirName]; !set {
			setVariable(s, apiConfigDirName, apiConfigDir)
		}
		s.Configs = append(slices.Clone(s.Configs), types.ServiceConfigObjConfig{Source: apiConfigKey, Target: apiConfigDir + "/config.json"})
	})
	q.Configs = maps.Clone(p.Configs)
	if q.Configs == nil {
		q.Configs = types.Configs{}
	}
	q.Configs[apiConfigKey] = types.ConfigObjConfig{Content: credentials}
	return q
}

// withheld reports whether what use_api_socket stands for is not in the service yet.
func withheld(s types.ContainerSpec) bool {
	return s.UseAPISocket && !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == apiSocket })
}

// WithModels returns the project with the variables that tell services of the models they use: the endpoint that serves them all, and each model's name.
func WithModels(p *types.Project, endpoint string) *types.Project {
	return withSpecs(p, func(s *types.ContainerSpec) {
		for ref := range s.Models {
			model, url := modelVariables(*s, ref)
			setVariable(s, model, p.Models[ref].Model)
			setVariable(s, url, endpoint)
		}
	})
}

// modelVariables are the variables that tell a service the name of a model and where it is served.
func modelVariables(s types.ContainerSpec, ref string) (model, url string) {
	prefix := strings.ReplaceAll(strings.ToUpper(ref), "-", "_")
	model, url = prefix+"_MODEL", prefix+"_URL"
	if use := s.Models[ref]; use != nil {
		model, url = cmp.Or(use.ModelVariable, model), cmp.Or(use.EndpointVariable, url)
	}
	return model, url
}

// modelless reports whether a service uses a model that it has not been told of yet.
func modelless(s types.ContainerSpec) bool {
	for ref := range s.Models {
		model, _ := modelVariables(s, ref)
		if _, told := s.Environment[model]; !told {
			return true
		}
	}
	return false
}
