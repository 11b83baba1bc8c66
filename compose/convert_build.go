// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"

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
	// Platforms replaces the platforms of the service.
	Platforms []string
	// Provenance and SBOM replace the service's settings unless empty.
	Provenance, SBOM string
}

// NewBuildSpec converts a service's build section.
func NewBuildSpec(p *types.Project, s types.ServiceConfig, o BuildOptions) (BuildSpec, error) {
	if s.Build == nil {
		return BuildSpec{}, fmt.Errorf("service %q has no build section", s.Name)
	}
	return BuildSpec{Service: s.Name, Config: *s.Build, Tags: []string{ImageName(p, s)}, NoCache: o.NoCache, Pull: o.Pull, Push: o.Push}, nil
}

// BuildNeeds lists the services whose images the service's build uses (additional_contexts service:NAME), sorted.
func BuildNeeds(s types.ServiceConfig) []string { return nil }
