// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strconv"
	"strings"

	"github.com/seed71221737/dev/compose"
)

// parseExitCode reads the exit code from the engine's sentence on a container: "Exited (137) 2 minutes ago", "Restarting (1) 3
// seconds ago". Lists of containers have it nowhere else. It is 0 if there is none.
func parseExitCode(status string) int {
	rest, ok := strings.CutPrefix(status, "Exited (")
	if !ok {
		if rest, ok = strings.CutPrefix(status, "Restarting ("); !ok {
			return 0
		}
	}
	digits, _, ok := strings.Cut(rest, ")")
	if !ok {
		return 0
	}
	code, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return code
}

// parseHealth reads the health from the engine's sentence on a container, for engines whose lists have no field for it: "Up 3 minutes
// (healthy)", "Up 1 second (health: starting)".
func parseHealth(status string) compose.Health {
	if !strings.HasPrefix(status, "Up ") {
		return compose.HealthNone
	}
	switch {
	case strings.HasSuffix(status, " (healthy)"):
		return compose.HealthHealthy
	case strings.HasSuffix(status, " (unhealthy)"):
		return compose.HealthUnhealthy
	case strings.HasSuffix(status, " (health: starting)"):
		return compose.HealthStarting
	}
	return compose.HealthNone
}
