// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"maps"

	"github.com/compose-spec/compose-go/v2/types"
)

// WithJob returns a project that was loaded with AllResources with one of its jobs as a service, which can be run as a one-off and has no containers of its
// own. A job that may not be run by hand is an error.
func WithJob(p *types.Project, name string) (*types.Project, error) {
	job, ok := p.Jobs[name]
	if !ok {
		return nil, fmt.Errorf("the project has no job %q", name)
	}
	if t := job.Triggers; t != nil && t.Manual != nil && !*t.Manual {
		return nil, located(p, &FieldError{Field: "jobs." + name + ".triggers.manual", Err: fmt.Errorf("job %q may not be run by hand", name)})
	}
	q := *p
	q.Services = maps.Clone(p.Services)
	if q.Services == nil {
		q.Services = types.Services{}
	}
	s := types.ServiceConfig{Name: name, Profiles: job.Profiles, ContainerSpec: job.ContainerSpec, WorkloadSpec: job.WorkloadSpec, Extensions: job.Extensions}
	one := q
	one.Services = types.Services{name: s}
	resolved, err := one.WithServicesEnvironmentResolved(true)
	if err == nil {
		resolved, err = resolved.WithServicesLabelsResolved(true)
	}
	if err != nil {
		return nil, fmt.Errorf("job %q: %w", name, err)
	}
	q.Services[name] = resolved.Services[name]
	return withNeededResources(&q), nil
}
