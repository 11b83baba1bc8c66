// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// ExitError is the exit code of a container or of a command in one, which becomes the program's own.
type ExitError struct {
	Code int
}

// Error says the code.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// ExitCode is the code for the process to exit with.
func (e *ExitError) ExitCode() int { return e.Code }

// Silent tells that there is nothing to print: the container said what there is to say.
func (e *ExitError) Silent() bool { return true }

// hinted adds the next command to type to an error.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// Hint returns the next command to type.
func (e *hinted) Hint() string { return e.hint }

// withHint adds a hint to an error.
func withHint(err error, format string, args ...any) error {
	return &hinted{error: err, hint: fmt.Sprintf(format, args...)}
}

// gone reports that what a call was about is not there.
func gone(err error) bool { return errdefs.IsNotFound(err) }

// says reports that the engine's answer contains one of the phrases. The API has no finer codes than HTTP's.
func says(err error, phrases ...string) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	for _, p := range phrases {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}
