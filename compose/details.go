// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import "time"

// ContainerDetails is what an engine tells of one container beyond the [Snapshot]: what [Why] explains it from. An engine adapter fills it from
// one inspection and, for Log, the last lines of the container's log.
type ContainerDetails struct {
	ID, Name  string
	State     State
	Health    Health
	ExitCode  int
	OOMKilled bool
	// Error is the engine's own word on why the container could not be started.
	Error string
	// Created, Started and Finished are zero when the engine has no such time (never started, never finished).
	Created, Started, Finished time.Time
	// RestartCount counts the engine's automatic restarts since the container was last started by hand.
	RestartCount int
	// RestartPolicy is the policy's name: no, always, on-failure, unless-stopped. RestartMax bounds on-failure; 0: no bound.
	RestartPolicy string
	RestartMax    int
	// HealthTest is the health check's command; empty when there is none. FailingStreak counts its failures in a row.
	HealthTest    []string
	FailingStreak int
	// Probes are the last runs of the health check, oldest first.
	Probes []Probe
	// Log holds the last log lines, oldest first.
	Log []string
}
