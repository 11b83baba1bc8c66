// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"strings"
	"time"
)

// AwaitError says why a container can no longer satisfy a condition that something waits for. An [Engine] returns it from Await with all
// that a user needs in order to understand it.
type AwaitError struct {
	Container string // the container's name
	Service   string
	Condition Condition
	// State, Health, ExitCode, OOMKilled and Reason are the container's at the moment it failed. Reason is the engine's own word on a
	// container that could not be started.
	State     State
	Health    Health
	ExitCode  int
	OOMKilled bool
	Reason    string
	// NoHealthcheck: its health was waited for, and it has no health check.
	NoHealthcheck bool
	// Gone: somebody removed the container meanwhile.
	Gone bool
	// Probe is the last run of the health check, if there was one.
	Probe *Probe
	// Log holds the container's last log lines, oldest first.
	Log []string
}

// Probe is one run of a container's health check.
type Probe struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// Error says in one line what happened; the log tail is left to the caller to show.
func (e *AwaitError) Error() string {
	switch {
	case e.Gone:
		return fmt.Sprintf("container %q was removed while something waited for it", e.Container)
	case e.NoHealthcheck:
		return fmt.Sprintf("container %q has no health check, and something waits for it to be healthy", e.Container)
	case e.Reason != "" && e.State != StateRunning:
		return fmt.Sprintf("container %q: %s", e.Container, e.Reason)
	case e.State == StateRunning && e.Health == HealthUnhealthy:
		return fmt.Sprintf("container %q is unhealthy%s", e.Container, e.probe())
	case e.OOMKilled:
		return fmt.Sprintf("container %q ran out of memory and was killed", e.Container)
	case e.State == StateRestarting:
		return fmt.Sprintf("container %q exited with %d and is being restarted", e.Container, e.ExitCode)
	case e.State == StateExited:
		return fmt.Sprintf("container %q exited with %d", e.Container, e.ExitCode)
	}
	return fmt.Sprintf("container %q is %s", e.Container, e.State)
}

func (e *AwaitError) probe() string {
	if e.Probe == nil {
		return ""
	}
	out, _, _ := strings.Cut(strings.TrimSpace(e.Probe.Output), "\n")
	if out == "" {
		return fmt.Sprintf(": its check exits with %d", e.Probe.ExitCode)
	}
	return fmt.Sprintf(": its check exits with %d: %s", e.Probe.ExitCode, out)
}

// Hint names the next command.
func (e *AwaitError) Hint() string {
	if e.NoHealthcheck {
		return fmt.Sprintf("add a healthcheck to service %q, or depend on it with condition: %s", e.Service, ConditionStarted)
	}
	return fmt.Sprintf("dev why %s", e.Service)
}
