// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// BuildOptions are the flags of a build.
type BuildOptions struct {
	NoCache, Pull, Push bool
	// Args override the service's build arguments; nil values are taken from the project's environment.
	Args map[string]*string
	// Proxy holds default build arguments: the proxies of the docker configuration.
	Proxy map[string]string
	// SSH agents or keys in the form of docker build's --ssh: default, or ID=PATH.
	SSH []string
	// AllPlatforms builds for all of build.platforms, as `build` does; otherwise only for the one that the service runs on.
	AllPlatforms bool
	// Provenance and SBOM replace the service's settings unless empty.
	Provenance, SBOM string
}

// imageContext is the prefix of an additional context that is an image.
const imageContext = "docker-image://"

// NewBuildSpec converts a service's build section: arguments resolved, secrets and SSH keys found, labels and tags filled in. Additional
// contexts that are images of other services (service:NAME) become docker-image://IMAGE; those services must have been built before,
// see [BuildNeeds].
func NewBuildSpec(p *types.Project, s types.ServiceConfig, o BuildOptions) (BuildSpec, error) {
	spec, err := newBuildSpec(p, s, o)
	if err != nil {
		return BuildSpec{}, located(p, err)
	}
	return spec, nil
}

func newBuildSpec(p *types.Project, s types.ServiceConfig, o BuildOptions) (BuildSpec, error) {
	c := conversion{p: p, s: s}
	if s.Build == nil {
		return BuildSpec{}, c.failf("build", "missing: there is nothing to build")
	}
	if i := s.Build.Isolation; i != "" && i != "default" {
		return BuildSpec{}, c.failf("build.isolation", "%q exists on Windows engines only", i)
	}
	config := *s.Build
	config.Args = c.buildArgs(o)
	config.Labels = c.buildLabels()
	config.SSH = buildSSH(config.SSH, o.SSH)
	if o.Provenance != "" {
		config.Provenance = o.Provenance
	}
	if o.SBOM != "" {
		config.SBOM = o.SBOM
	}
	var err error
	if config.AdditionalContexts, err = c.buildContexts(); err != nil {
		return BuildSpec{}, err
	}
	spec := BuildSpec{
		Service: s.Name,
		Tags:    append([]string{ImageName(p, s)}, config.Tags...),
		NoCache: o.NoCache || config.NoCache,
		Pull:    o.Pull || config.Pull,
		Push:    o.Push,
	}
	if spec.Platforms, err = c.buildPlatforms(o.AllPlatforms); err != nil {
		return BuildSpec{}, err
	}
	if spec.Secrets, err = c.buildSecrets(); err != nil {
		return BuildSpec{}, err
	}
	config.Platforms = spec.Platforms
	spec.Config = config
	return spec, nil
}

// BuildNeeds lists the services whose images the service's build uses (additional_contexts service:NAME), sorted.
func BuildNeeds(s types.ServiceConfig) []string {
	if s.Build == nil {
		return nil
	}
	var names []string
	for _, context := range s.Build.AdditionalContexts {
		if name, ok := strings.CutPrefix(context, types.ServicePrefix); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// buildArgs merges the arguments: flags over the file's, proxies only where neither says anything. One without a value that the
// environment does not have stays without.
func (c conversion) buildArgs(o BuildOptions) types.MappingWithEquals {
	args := types.MappingWithEquals{}
	maps.Copy(args, c.s.Build.Args)
	maps.Copy(args, o.Args)
	args = args.Resolve(c.p.Environment.Resolve)
	for name, value := range o.Proxy {
		if _, ok := args[name]; !ok {
			args[name] = &value
		}
	}
	return args
}

func (c conversion) buildLabels() types.Labels {
	labels := types.Labels{}
	maps.Copy(labels, c.s.Build.Labels)
	return labels.Add(LabelVersion, labelVersion).Add(LabelProject, c.p.Name).Add(LabelService, c.s.Name)
}

// buildSSH adds the keys given as flags; one of the same ID replaces the file's.
func buildSSH(keys types.SSHConfig, flags []string) types.SSHConfig {
	all := slices.Clone(keys)
	for _, flag := range flags {
		id, path, _ := strings.Cut(flag, "=")
		all = slices.DeleteFunc(all, func(k types.SSHKey) bool { return k.ID == id })
		all = append(all, types.SSHKey{ID: id, Path: path})
	}
	return all
}

func (c conversion) buildContexts() (types.Mapping, error) {
	contexts := maps.Clone(c.s.Build.AdditionalContexts)
	for name, context := range contexts {
		service, ok := strings.CutPrefix(context, types.ServicePrefix)
		if !ok {
			continue
		}
		other, ok := c.p.AllServices()[service]
		if !ok {
			return nil, c.failf("build.additional_contexts."+name, "there is no service %q", service)
		}
		contexts[name] = imageContext + ImageName(c.p, other)
	}
	return contexts, nil
}

// buildPlatforms is what to build for: all of build.platforms, or the platform the service runs on. Several, when only one is wanted
// and none is named, leave the choice to the builder.
func (c conversion) buildPlatforms(all bool) ([]string, error) {
	listed := c.s.Build.Platforms
	runs := Platform(c.p, c.s)
	switch {
	case runs != "" && len(listed) > 0 && !slices.Contains(listed, runs):
		return nil, c.failf("build.platforms", "does not have %s, which the service is to run on", runs)
	case runs != "" && (!all || len(listed) == 0):
		return []string{runs}, nil
	case !all && len(listed) > 1:
		return nil, nil
	}
	return listed, nil
}

// buildSecrets finds the definitions of the secrets that the build may read, by the ID it asks for them.
func (c conversion) buildSecrets() (map[string]types.SecretConfig, error) {
	secrets := map[string]types.SecretConfig{}
	for i, use := range c.s.Build.Secrets {
		def, ok := c.p.Secrets[use.Source]
		if !ok {
			return nil, c.failf(fmt.Sprintf("build.secrets[%d]", i), "secret %q is not defined", use.Source)
		}
		ref := fileRef{"secrets", i, types.FileReferenceConfig(use), types.FileObjectConfig(def)}
		if err := ref.refuse(); err != nil {
			return nil, err
		}
		switch {
		case def.File != "":
			if _, err := os.Stat(def.File); err != nil {
				return nil, &FieldError{Field: "secrets." + use.Source + ".file", Err: err}
			}
		default:
			content, err := c.content(ref)
			if err != nil {
				return nil, err
			}
			def.Content = string(content)
		}
		id := use.Target
		if id == "" {
			id = use.Source
		}
		secrets[id] = def
	}
	return secrets, nil
}
