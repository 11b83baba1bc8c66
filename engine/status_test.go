// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/seed71221737/dev/compose"
)

func TestParseStatus(t *testing.T) {
	tests := []struct {
		status string
		code   int
		health compose.Health
	}{
		{"Up 3 minutes", 0, ""},
		{"Up 3 minutes (healthy)", 0, compose.HealthHealthy},
		{"Up Less than a second (health: starting)", 0, compose.HealthStarting},
		{"Up About an hour (unhealthy)", 0, compose.HealthUnhealthy},
		{"Up 2 days (Paused)", 0, ""},
		{"Exited (137) 2 minutes ago", 137, ""},
		{"Exited (-1) 2 minutes ago", -1, ""},
		{"Restarting (1) 3 seconds ago", 1, ""},
		{"Created", 0, ""}, {"Dead", 0, ""}, {"", 0, ""}, {"Exited (", 0, ""}, {"Exited (x) ago", 0, ""},
		{"Removal In Progress", 0, ""},
	}
	for _, tt := range tests {
		if got := parseExitCode(tt.status); got != tt.code {
			t.Errorf("%q: exit code %d, want %d", tt.status, got, tt.code)
		}
		if got := parseHealth(tt.status); got != tt.health {
			t.Errorf("%q: health %q, want %q", tt.status, got, tt.health)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Exited (137) 2 minutes ago")
	f.Add("Up 3 minutes (healthy)")
	f.Fuzz(func(t *testing.T, status string) {
		if parseExitCode(status) != 0 && parseHealth(status) != compose.HealthNone {
			t.Errorf("%q both ended and lives", status)
		}
	})
}
