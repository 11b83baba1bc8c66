// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
)

// BridgeModel renders the project for programs that make another model of it (Kubernetes, for one) and have neither its files nor its engine: services
// name their image and all ports they listen at, exposed gives those of images (by their names in [ImageName]), and configs and secrets hold their content.
func BridgeModel(p *types.Project, exposed map[string][]string) ([]byte, error) {
	q := *p
	q.Services = maps.Clone(p.Services)
	for name, s := range q.Services {
		if s.Provider != nil {
			continue
		}
		s.Image = ImageName(p, s)
		s.Expose = listening(s, exposed[s.Image])
		q.Services[name] = s
	}
	q.Secrets, q.Configs = maps.Clone(p.Secrets), maps.Clone(p.Configs)
	for name, s := range q.Secrets {
		content, err := inlined(p, types.FileObjectConfig(s))
		if err != nil {
			return nil, fmt.Errorf("secret %q: %w", name, err)
		}
		q.Secrets[name] = types.SecretConfig(content)
	}
	for name, c := range q.Configs {
		content, err := inlined(p, types.FileObjectConfig(c))
		if err != nil {
			return nil, fmt.Errorf("config %q: %w", name, err)
		}
		content.Environment = "" // beside which content is not rendered
		q.Configs[name] = types.ConfigObjConfig(content)
	}
	return q.MarshalYAML(types.WithSecretContent)
}

// listening are all ports of a service: those it says, those of its image, and what is published.
func listening(s types.ServiceConfig, image []string) types.StringOrNumberList {
	all := slices.Concat([]string(s.Expose), image)
	for _, p := range s.Ports {
		all = append(all, strconv.FormatUint(uint64(p.Target), 10))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// inlined returns a config or secret with its content, wherever it is kept.
func inlined(p *types.Project, f types.FileObjectConfig) (types.FileObjectConfig, error) {
	switch {
	case bool(f.External):
	case f.Environment != "":
		f.Content = p.Environment[f.Environment]
	case f.File != "":
		content, err := os.ReadFile(f.File)
		if err != nil {
			return f, err
		}
		f.Content = string(content)
	}
	return f, nil
}
