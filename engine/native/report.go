// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/seed71221737/dev/engine/native/archive"
	"github.com/seed71221737/dev/engine/native/supervise"
)

// Stage is how far a supervisor has come.
type Stage string

// The stages, in order.
const (
	StageCheck     Stage = "check"     // the host has what the engine needs
	StageUnpack    Stage = "unpack"    // the bundle is unpacked and checked
	StageConfigure Stage = "configure" // the configuration is written
	StageStart     Stage = "start"     // containerd and dockerd start
	StageReady     Stage = "ready"     // the API answers
	StageStopping  Stage = "stopping"  // components are ended
)

// Report is what the supervisor says about itself on its control socket.
type Report struct {
	Schema      int                 `json:"schema"`
	PID         int                 `json:"pid"`
	Since       time.Time           `json:"since"` // when the supervisor started
	Stage       Stage               `json:"stage"`
	Version     string              `json:"version,omitempty"` // of the bundle
	Dir         string              `json:"dir,omitempty"`     // where the bundle is unpacked
	Bundle      []archive.Component `json:"bundle,omitempty"`  // what it consists of
	DataRoot    string              `json:"data_root"`
	LiveRestore bool                `json:"live_restore"`
	Firewall    Firewall            `json:"firewall,omitempty"`
	Pools       []string            `json:"address_pools,omitempty"`
	Warnings    []string            `json:"warnings,omitempty"`
	Components  []supervise.State   `json:"components"`
}

const reportSchema = 1

// Failure is why a start failed, as the supervisor leaves it for the command
// that started it.
type Failure struct {
	Stage   Stage    `json:"stage"`
	Message string   `json:"error"`
	Fix     string   `json:"hint,omitempty"`
	Log     []string `json:"log,omitempty"`
	Code    int      `json:"exit_code"`
}

func (f *Failure) Error() string {
	return "start the engine (stage " + string(f.Stage) + "): " + f.Message
}

// Hint names the next step.
func (f *Failure) Hint() string {
	if f.Fix != "" {
		return f.Fix
	}
	return "`dev engine logs` shows what the components said"
}

// ExitCode is the documented exit code of the cause.
func (f *Failure) ExitCode() int { return max(f.Code, 1) }

// Lines are the last log lines of the component that failed.
func (f *Failure) Lines() []string { return f.Log }

// leaveFailure writes why a start failed where the command that started it
// reads it.
func leaveFailure(p Paths, stage Stage, cause error) error {
	f := Failure{Stage: stage, Message: cause.Error(), Code: 1}
	var hinter interface{ Hint() string }
	if errors.As(cause, &hinter) {
		f.Fix = hinter.Hint()
	}
	var liner interface{ Lines() []string }
	if errors.As(cause, &liner) {
		f.Log = liner.Lines()
	}
	var coder interface{ ExitCode() int }
	if errors.As(cause, &coder) {
		f.Code = coder.ExitCode()
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return writeVolatile(p.failure(), data, 0o644)
}

func parseFailure(data []byte) (*Failure, error) {
	var f Failure
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	return &f, nil
}

// phaseOf is the phase of a service whose supervisor answers.
func phaseOf(r Report) Phase {
	switch r.Stage {
	case StageReady:
	case StageStopping:
		return PhaseStopping
	default:
		return PhaseStarting
	}
	for _, c := range r.Components {
		if c.Phase != supervise.Running {
			return PhaseDegraded
		}
	}
	return PhaseRunning
}
