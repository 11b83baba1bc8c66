// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"fmt"
	"log/slog"
	"time"
)

// Service is the engine as a command sees it. Its methods may be called by
// several processes at once: they lock each other out where they must.
type Service struct {
	Paths Paths
	// Source is where the bundle is; only starting needs it.
	Source Source
	// Supervisor is the command line that runs Serve, program first; usually
	// this program with `engine serve`.
	Supervisor []string
	// Env is added to the supervisor's environment, as NAME=value: nothing of
	// the caller's is kept.
	Env []string
	// Systemd makes the engine a systemd unit instead of a detached process.
	Systemd bool
	// UnitDir is where units are installed; empty is systemd's own folder.
	UnitDir string
	Log     *slog.Logger
	// Stage is told how far a start has come; nil is not told.
	Stage func(Stage)
}

// Phase is what the service does now.
type Phase string

// The phases of the service.
const (
	PhaseStopped  Phase = "stopped"
	PhaseStarting Phase = "starting"
	PhaseRunning  Phase = "running"
	PhaseDegraded Phase = "degraded" // supervised, but a component is down
	PhaseStopping Phase = "stopping"
	PhaseBroken   Phase = "broken" // the supervisor lives and does not answer
)

// Status is what can be observed now.
type Status struct {
	Phase Phase `json:"phase"`
	// Host is the address of the Docker API.
	Host string `json:"host"`
	// Root keeps the engine's data, logs and programs.
	Root string `json:"root"`
	// Report is the supervisor's own; nil when it does not run.
	Report *Report `json:"supervisor,omitempty"`
	// Engine is the version that the Docker API answers; empty when it does not.
	Engine string `json:"engine_version,omitempty"`
	// Problems are found by looking, such as networks whose subnet the host
	// routes elsewhere.
	Problems []string `json:"problems,omitempty"`
	// Disk is what the engine's data takes, nil when it cannot be told.
	Disk *DiskUse `json:"disk,omitempty"`
}

// Up says that the Docker API answers, or is about to.
func (s Status) Up() bool { return s.Phase == PhaseRunning || s.Phase == PhaseDegraded }

// DiskUse is what the engine's data takes, in bytes.
type DiskUse struct {
	Images     int64 `json:"images"`
	Containers int64 `json:"containers"`
	Volumes    int64 `json:"volumes"`
	BuildCache int64 `json:"build_cache"`
	Free       int64 `json:"free"` // left on the file system of the data
}

// StopOptions say how to stop.
type StopOptions struct {
	// KeepContainers leaves containers running, where live-restore is on.
	KeepContainers bool
}

// UninstallOptions say what to remove.
type UninstallOptions struct {
	// Data removes images, containers and volumes too.
	Data bool
}

// LogOptions choose log lines.
type LogOptions struct {
	// Component is dockerd, containerd or supervisor; empty is all.
	Component string
	// Tail is the number of lines from the end; negative is all.
	Tail int
	// Follow goes on with new lines until the context ends.
	Follow bool
}

// Exit codes of errors of this package, documented in docs/exit-codes.md.
const (
	// ExitNotRunning is for a status of an engine that does not run.
	ExitNotRunning = 3
	// ExitPrivilege is for an operation that only root can do.
	ExitPrivilege = 4
	// ExitImpossible is for a system that lacks what the engine needs.
	ExitImpossible = 5
)

// PrivilegeError says that an operation needs root.
type PrivilegeError struct{ Op string }

func (e *PrivilegeError) Error() string { return e.Op + " the engine: only root can" }

// Hint names the next step.
func (e *PrivilegeError) Hint() string { return "sudo dev engine " + e.Op }

// ExitCode is the documented exit code.
func (e *PrivilegeError) ExitCode() int { return ExitPrivilege }

// ExitCode is the documented exit code.
func (e *MissingError) ExitCode() int { return ExitImpossible }

// ExitCode is the documented exit code.
func (e *NoBundleError) ExitCode() int { return ExitImpossible }

// BrokenError says that a supervisor lives and does not answer.
type BrokenError struct {
	// Holder is its process, 0 when that is not known.
	Holder int
}

func (e *BrokenError) Error() string {
	return "the engine's supervisor lives and does not answer"
}

// Hint names the next step.
func (e *BrokenError) Hint() string {
	if e.Holder == 0 {
		return "`dev engine logs --component supervisor` may say why"
	}
	return fmt.Sprintf("end it with `kill %d` (or `kill -9`), then `dev engine start`: containers go on", e.Holder)
}

// UnsupportedError says that the engine does not run natively on this system.
type UnsupportedError struct{ OS string }

func (e *UnsupportedError) Error() string {
	return "run the engine: it runs natively only on Linux, not on " + e.OS
}

// Hint names the next step.
func (e *UnsupportedError) Hint() string {
	return "set DOCKER_HOST or --host to an engine elsewhere"
}

// ExitCode is the documented exit code.
func (e *UnsupportedError) ExitCode() int { return ExitImpossible }

// Bounds on waiting for a supervisor.
const (
	answerDeadline = 2 * time.Second // to a question about its state
	startOverall   = 5 * time.Minute // a start with unpacking on a slow disk
	endDeadline    = 10 * time.Second
)
