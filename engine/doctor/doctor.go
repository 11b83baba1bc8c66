// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package doctor looks for what keeps applications from running on this host, and knows how to mend it.
//
// Its checks change nothing, depend on nothing but the [Host] they are given, and bound their own time. What a check, a finding and a repair are is in
// package finding, which machines' checks share.
package doctor

import (
	"context"
	"time"

	"github.com/seed71221737/dev/internal/finding"
)

type (
	// Check looks at one thing.
	Check = finding.Check
	// Finding is one fault.
	Finding = finding.Finding
	// Report is what a check found.
	Report = finding.Report
)

// The severities.
const (
	Broken   = finding.Broken
	Doubtful = finding.Doubtful
)

// Host is what checks look at; the functions stand for the system, so that each fault can be tried.
type Host struct {
	// Getenv reads the process's environment.
	Getenv func(string) string
	// Dir is the user's folder (~/.dev), DockerDir that of docker's settings.
	Dir, DockerDir string
	// LookPath finds a program, as exec.LookPath.
	LookPath func(string) (string, error)
	// LookupHost resolves a name.
	LookupHost func(context.Context, string) ([]string, error)
	// FreeSpace gives the free and whole bytes of the file system that a folder is on.
	FreeSpace func(dir string) (free, size uint64, err error)
	// PortFree reports whether a port can be listened on.
	PortFree func(protocol string, port uint16) bool
	// ReadFile reads a file of the system, such as below /proc.
	ReadFile func(string) ([]byte, error)
	// Connect opens a unix socket, to see whether anybody listens.
	Connect func(path string) error
	// Now is the time.
	Now func() time.Time
}
