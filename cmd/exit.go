// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
)

// Exit codes, documented in docs/exit-codes.md.
const (
	exitOK        = 0
	exitError     = 1
	exitCancelled = 130
)

// coder is an error that chooses the exit code: a container's own, or one that the package documents.
type coder interface {
	error
	ExitCode() int
}

// hinter is an error that knows the next command to type.
type hinter interface {
	error
	Hint() string
}

// silent is an error whose message has been shown already, or that is only an exit code.
type silent interface {
	error
	Silent() bool
}

// exitCode prints err, if there is one to print, and maps it to the process's exit code. It is the only place that does either.
func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitError
	if c, ok := errors.AsType[coder](err); ok {
		code = c.ExitCode()
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitCancelled
	}
	if s, ok := errors.AsType[silent](err); ok && s.Silent() {
		return code
	}
	fmt.Fprintf(a.err, "Error: %v\n", err)
	if h, ok := errors.AsType[hinter](err); ok && h.Hint() != "" {
		fmt.Fprintf(a.err, "Hint: %s\n", h.Hint())
	}
	return code
}
