// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/seed71221737/dev/engine/build/wire"
)

// Error is a build that failed. Its message ends with the Dockerfile's lines that BuildKit blames, if it does.
type Error struct {
	Service string
	// Text is what BuildKit says, without its transport's words.
	Text string
	// Source are the lines it blames, marked.
	Source string
	// warnings are what was wrong on the way, and may be the cause.
	warnings []string
}

// transport is what the way to BuildKit puts before its words.
var transport = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`failed to solve: |rpc error: code = \w+ desc = `) })

func newError(service string, f *wire.Failure) *Error {
	return &Error{Service: service, Text: transport().ReplaceAllString(f.Text, ""), Source: strings.TrimRight(f.Source, "\n"), warnings: f.Warnings}
}

func (e *Error) Error() string {
	text := fmt.Sprintf("build of service %q failed: %s", e.Service, e.Text)
	if e.Source != "" {
		text += "\n" + e.Source
	}
	return text
}

// Hint tells what was wrong with the registry credentials, if something was.
func (e *Error) Hint() string { return strings.Join(e.warnings, "; ") }

// MissingError is a context or Dockerfile that is not there.
type MissingError struct {
	Service, What, Path string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("build of service %q: %s %q not found", e.Service, e.What, e.Path)
}

// Hint tells where the path comes from.
func (e *MissingError) Hint() string {
	if e.What == "dockerfile" {
		return "create it, or set build.dockerfile of the service (relative to build.context)"
	}
	return "create the folder, or correct the service's build section (paths are relative to the compose file)"
}
