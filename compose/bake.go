// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// BakeFile is a project's builds as a file for docker buildx bake.
type BakeFile struct {
	Groups  map[string]BakeGroup  `json:"group"`
	Targets map[string]BakeTarget `json:"target"`
}

// BakeGroup names targets that are built together.
type BakeGroup struct {
	Targets []string `json:"targets"`
}

// BakeTarget is one build. A ${ in a value is doubled: bake fills in variables itself.
type BakeTarget struct {
	Context          string            `json:"context,omitempty"`
	Contexts         map[string]string `json:"contexts,omitempty"`
	Dockerfile       string            `json:"dockerfile,omitempty"`
	DockerfileInline string            `json:"dockerfile-inline,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Tags             []string          `json:"tags,omitempty"`
	CacheFrom        []string          `json:"cache-from,omitempty"`
	CacheTo          []string          `json:"cache-to,omitempty"`
	Target           string            `json:"target,omitempty"`
	Secrets          []string          `json:"secret,omitempty"`
	SSH              []string          `json:"ssh,omitempty"`
	Platforms        []string          `json:"platforms,omitempty"`
	Pull             bool              `json:"pull,omitempty"`
	NoCache          bool              `json:"no-cache,omitempty"`
	NetworkMode      string            `json:"network,omitempty"`
	NoCacheFilter    []string          `json:"no-cache-filter,omitempty"`
	ShmSize          types.UnitBytes   `json:"shm-size,omitempty"`
	Ulimits          []string          `json:"ulimits,omitempty"`
	Entitlements     []string          `json:"entitlements,omitempty"`
	ExtraHosts       map[string]string `json:"extra-hosts,omitempty"`
	Outputs          []string          `json:"output,omitempty"`
	Attest           []string          `json:"attest,omitempty"`
}

// NewBakeFile converts the builds of a project; the default group has those of services, or all if there are none.
func NewBakeFile(p *types.Project, services []string, o BuildPlanOptions) (BakeFile, error) {
	out := BakeFile{Groups: map[string]BakeGroup{}, Targets: map[string]BakeTarget{}}
	names := bakeNames(p)
	wanted := services
	if len(services) == 0 {
		wanted = p.ServiceNames()
	} else if o.WithDependencies {
		wanted = withBuildNeeds(p, services)
	}
	group := BakeGroup{Targets: []string{}}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Build == nil {
			continue
		}
		target, err := newBakeTarget(p, s, names, o.Build)
		if err != nil {
			return BakeFile{}, err
		}
		out.Targets[names[name]] = target
		if slices.Contains(wanted, name) {
			group.Targets = append(group.Targets, names[name])
		}
	}
	out.Groups["default"] = group
	return out, nil
}

// withBuildNeeds adds the services that these depend on.
func withBuildNeeds(p *types.Project, services []string) (all []string) {
	_ = p.ForEachService(services, func(name string, _ *types.ServiceConfig) error {
		all = append(all, name)
		return nil
	})
	return all
}

// bakeNames gives each service the name of a target, which has no dots.
func bakeNames(p *types.Project) map[string]string {
	names, taken := map[string]string{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		target := strings.ReplaceAll(name, ".", "_")
		for taken[target] {
			target += "_"
		}
		names[name], taken[target] = target, true
	}
	return names
}

func newBakeTarget(p *types.Project, s types.ServiceConfig, names map[string]string, o BuildOptions) (BakeTarget, error) {
	o.AllPlatforms = true
	spec, err := NewBuildSpec(p, s, o)
	if err != nil {
		return BakeTarget{}, err
	}
	c := spec.Config
	t := BakeTarget{
		Context: c.Context, Contexts: bakeContexts(s.Build.AdditionalContexts, names), DockerfileInline: literal(c.DockerfileInline),
		Labels: c.Labels, Tags: append(slices.Clone(c.Tags), ImageName(p, s)), CacheFrom: c.CacheFrom, CacheTo: c.CacheTo, Target: c.Target,
		Platforms: spec.Platforms, Pull: spec.Pull, NoCache: spec.NoCache, NetworkMode: c.Network, NoCacheFilter: c.NoCacheFilter, ShmSize: c.ShmSize,
		Entitlements: c.Entitlements, Args: map[string]string{}, ExtraHosts: map[string]string{},
	}
	if c.DockerfileInline == "" {
		t.Dockerfile = bakeDockerfile(c)
	}
	for name, value := range c.Args {
		if value != nil {
			t.Args[name] = literal(*value)
		}
	}
	for host, addresses := range c.ExtraHosts {
		t.ExtraHosts[host] = strings.Join(addresses, ",")
	}
	if c.Privileged {
		t.Entitlements = append(slices.Clone(t.Entitlements), "security.insecure")
	}
	t.Secrets, t.SSH, t.Ulimits, t.Attest = bakeSecrets(spec), bakeSSH(c.SSH), bakeUlimits(c.Ulimits), bakeAttest(c)
	push := o.Push && s.Image != ""
	switch {
	case len(spec.Platforms) > 1:
		t.Outputs = []string{fmt.Sprintf("type=image,push=%t", push)}
	case push:
		t.Outputs = []string{"type=registry"}
	default:
		t.Outputs = []string{"type=docker"}
	}
	return t, nil
}

func literal(text string) string { return strings.ReplaceAll(text, "${", "$${") }

// bakeDockerfile is the Dockerfile's path: absolute, unless the context is an address.
func bakeDockerfile(c types.BuildConfig) string {
	file := c.Dockerfile
	if file == "" {
		file = "Dockerfile"
	}
	if strings.Contains(c.Context, "://") || isRemote(c.Context) || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(c.Context, file)
}

// bakeContexts names the targets of services whose images builds use.
func bakeContexts(contexts types.Mapping, names map[string]string) map[string]string {
	out := map[string]string{}
	for name, context := range contexts {
		if service, ok := strings.CutPrefix(context, types.ServicePrefix); ok {
			context = "target:" + names[service]
		}
		out[name] = context
	}
	return out
}

// bakeSecrets are references to secrets: their content stays where it is.
func bakeSecrets(spec BuildSpec) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(spec.Secrets)) {
		s := spec.Secrets[id]
		switch {
		case s.File != "":
			out = append(out, fmt.Sprintf("id=%s,type=file,src=%s", id, s.File))
		case s.Environment != "":
			out = append(out, fmt.Sprintf("id=%s,type=env,env=%s", id, s.Environment))
		}
	}
	return out
}

func bakeSSH(keys types.SSHConfig) (out []string) {
	for _, k := range keys {
		if k.Path == "" {
			out = append(out, k.ID)
		} else {
			out = append(out, k.ID+"="+k.Path)
		}
	}
	return out
}

func bakeUlimits(limits map[string]*types.UlimitsConfig) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if l := limits[name]; l.Single != 0 {
			out = append(out, fmt.Sprintf("%s=%d", name, l.Single))
		} else {
			out = append(out, fmt.Sprintf("%s=%d:%d", name, l.Soft, l.Hard))
		}
	}
	return out
}

// bakeAttest are the attestations; the values are those of docker buildx build's flags.
func bakeAttest(c types.BuildConfig) (out []string) {
	for _, a := range []struct{ kind, value string }{{"provenance", c.Provenance}, {"sbom", c.SBOM}} {
		switch a.value {
		case "":
		case "true":
			out = append(out, "type="+a.kind)
		case "false":
			out = append(out, "type="+a.kind+",disabled=true")
		default:
			out = append(out, "type="+a.kind+","+a.value)
		}
	}
	return out
}
