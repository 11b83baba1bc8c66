// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/seed71221737/dev/compose"
)

// newDetails converts an inspected container.
func newDetails(r *container.InspectResponse) compose.ContainerDetails {
	d := compose.ContainerDetails{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Created: parseTime(r.Created), RestartCount: r.RestartCount,
	}
	if s := r.State; s != nil {
		d.State, d.ExitCode, d.OOMKilled, d.Error = compose.State(s.Status), s.ExitCode, s.OOMKilled, s.Error
		d.Started, d.Finished = parseTime(s.StartedAt), parseTime(s.FinishedAt)
		d.Probes = newProbes(s.Health)
		if s.Health != nil {
			d.FailingStreak = s.Health.FailingStreak
			d.Health = newHealth(s.Health.Status)
			if s.Running {
				d.Health = currentHealth(s)
			}
		}
	}
	if h := r.HostConfig; h != nil {
		d.RestartPolicy, d.RestartMax = string(h.RestartPolicy.Name), h.RestartPolicy.MaximumRetryCount
	}
	if r.Config != nil && r.Config.Healthcheck != nil && !disabled(r.Config.Healthcheck) {
		d.HealthTest = r.Config.Healthcheck.Test
	}
	return d
}

// disabled reports whether a health check switches off that of the image.
func disabled(h *container.HealthConfig) bool { return len(h.Test) == 1 && h.Test[0] == "NONE" }
