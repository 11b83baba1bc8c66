// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
)

// Exit codes, documented in docs/exit-codes.md.
const (
	exitOK        = 0
	exitError     = 1
	exitChanges   = 2 // `plan --exit-code`: there is something to do
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
	if c, ok := errors.AsType[coder](err); ok && c.ExitCode() >= 0 { // a program that a signal ended has -1
		code = c.ExitCode()
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitCancelled
	}
	if s, ok := errors.AsType[silent](err); ok && s.Silent() {
		return code
	}
	a.printError(err)
	return code
}

// printError shows an error and its hint on stderr, as one JSON object with --progress json.
func (a *app) printError(err error) {
	if a.progressName == "json" {
		a.printErrorJSON(err, nil)
		return
	}
	paint := a.painter(a.err, false)
	fmt.Fprintf(a.err, "%s %v\n", paint(red, "Error:"), err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", paint(cyan, "Hint:"), hint)
	}
}

// printErrorJSON shows an error as an object, with what is known of the container behind it.
func (a *app) printErrorJSON(err error, await *compose.AwaitError) {
	j := struct {
		Error     bool           `json:"error"`
		Message   string         `json:"message"`
		Hint      string         `json:"hint,omitempty"`
		Container string         `json:"container,omitempty"`
		Check     *compose.Probe `json:"last_check,omitempty"`
		Log       []string       `json:"log,omitempty"`
	}{Error: true, Message: err.Error(), Hint: hintOf(err)}
	if await != nil {
		j.Container, j.Check, j.Log = await.Container, await.Probe, await.Log
	}
	_ = writeJSON(a.err, j)
}

func hintOf(err error) string {
	if h, ok := errors.AsType[hinter](err); ok {
		return h.Hint()
	}
	return ""
}

// hinted is an error with the next command to type.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// Hint says what to type next.
func (e *hinted) Hint() string { return e.hint }

// withHint adds a hint to err; it returns nil for nil.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// usagef is an error about the command line itself. Its hint, the command's help, is added where the command is known.
func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// exitStatus is an error that is only an exit code: a container's, a command's in a container, or one whose reason has been shown.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the code.
func (e exitStatus) ExitCode() int { return int(e) }

// Silent is true: the code says it all.
func (e exitStatus) Silent() bool { return true }

// exitWith turns a container's exit code into an error; 0 is nil.
func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}

// flagError explains a flag that cobra could not parse. Fingers put flags of dev itself after the command; docker compose takes them only
// before, because -f and -p mean other things there.
func flagError(c *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && c.HasParent() {
		name := e.GetSpecifiedName()
		flags := c.Root().Flags()
		global := flags.Lookup(name)
		if shorthands := e.GetSpecifiedShortnames(); shorthands != "" {
			global = flags.ShorthandLookup(name[:1])
		}
		if global != nil {
			return withHint(err, "it stands before the command: %s --%s … %s", c.Parent().CommandPath(), global.Name, c.Name())
		}
		if near := nearest(name, flagNames(c)); near != "" {
			return withHint(err, "did you mean --%s? See %s --help", near, c.CommandPath())
		}
	}
	return withHint(err, "see %s --help", c.CommandPath())
}

func flagNames(c *cobra.Command) []string {
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

// takes checks the number of arguments. what lists them as the usage line does: "SERVICE COMMAND". A negative most is any number.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		var err error
		switch {
		case len(args) < least && what != "":
			err = fmt.Errorf("%s needs %s", c.Name(), what)
		case most == 0 && len(args) > 0:
			err = fmt.Errorf("%s takes no arguments, but got %q", c.Name(), args[0])
		case most >= 0 && len(args) > most:
			err = fmt.Errorf("%s does not take %q", c.Name(), strings.Join(args[most:], " "))
		}
		return withHint(err, "see %s --help", c.CommandPath())
	}
}
