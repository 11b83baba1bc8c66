// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
)

// Error is a build that failed. Its message ends with the Dockerfile's lines that BuildKit blames, if it does.
type Error struct {
	Service string
	Err     error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "build of service %q failed: %v", e.Service, e.Err)
	for _, source := range errdefs.Sources(e.Err) {
		b.WriteString("\n")
		_ = source.Print(&b) // writes to memory
	}
	return strings.TrimRight(b.String(), "\n")
}

// Unwrap returns BuildKit's error.
func (e *Error) Unwrap() error { return e.Err }

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
