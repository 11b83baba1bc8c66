// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed71221737/dev/hostagent"
)

// NotFoundError says that there is no such machine.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find machine %q: it does not exist", e.Name)
}

// Hint names the next step.
func (e *NotFoundError) Hint() string {
	return fmt.Sprintf("see `dev machine ls`; make it with `dev machine create %s`", e.Name)
}

// ExistsError says that a machine's name is taken.
type ExistsError struct {
	Name string
	// Other is the machine in the way, where it differs in upper and lower case only.
	Other string
}

func (e *ExistsError) Error() string {
	if e.Other != "" && e.Other != e.Name {
		return fmt.Sprintf("create machine %q: machine %q differs only in upper and lower case", e.Name, e.Other)
	}
	return fmt.Sprintf("create machine %q: it exists already", e.Name)
}

// Hint names the next step.
func (e *ExistsError) Hint() string {
	return fmt.Sprintf("start it with `dev machine start %s`, or choose another name", e.Name)
}

// NotRunningError says that a machine has to run for what was asked.
type NotRunningError struct {
	Name  string
	Phase Phase
}

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("reach machine %q: it is %s", e.Name, e.Phase)
}

// Hint names the next step.
func (e *NotRunningError) Hint() string {
	if e.Phase == PhaseSuspended {
		return fmt.Sprintf("let it go on with `dev machine resume %s`", e.Name)
	}
	return fmt.Sprintf("start it with `dev machine start %s`", e.Name)
}

// CheckError says that this host lacks something a machine needs.
type CheckError struct {
	Driver string
	Err    error
}

func (e *CheckError) Error() string { return fmt.Sprintf("check driver %q: %v", e.Driver, e.Err) }

func (e *CheckError) Unwrap() error { return e.Err }

// BrokenError says why a machine cannot be used as it is.
type BrokenError struct {
	Name string
	Err  error
}

func (e *BrokenError) Error() string { return fmt.Sprintf("use machine %q: %v", e.Name, e.Err) }

func (e *BrokenError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *BrokenError) Hint() string {
	if h := hintOf(e.Err); h != "" {
		return h
	}
	return fmt.Sprintf("repair the file, or remove the machine with `dev machine rm --force %s`", e.Name)
}

// BusyError says that another command holds a machine's lock.
type BusyError struct{ Name string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("lock machine %q: another command has been changing it for too long", e.Name)
}

// Hint names the next step.
func (e *BusyError) Hint() string { return "let the other command end, or end it" }

// PathError says that a machine's folder is too deep for unix sockets.
type PathError struct {
	Path string
	Max  int // bytes
}

func (e *PathError) Error() string {
	return fmt.Sprintf("place the socket %q: its path has %d bytes and systems take %d", e.Path, len(e.Path), e.Max)
}

// Hint names the next step.
func (e *PathError) Hint() string {
	return "give the machine a shorter name, or set DEV_HOME to a shorter folder"
}

// StartError says at which stage a start failed, and what the console said last.
type StartError struct {
	Name  string
	Stage hostagent.Stage // empty where the agent did not get to one
	Err   error
	// Console and Log are the last lines of the serial console and of the agent's log.
	Console, Log []string
	// LogFile is where the agent's whole log is.
	LogFile string
}

func (e *StartError) Error() string {
	if e.Stage == "" || strings.HasPrefix(e.Err.Error(), "stage ") { // an agent may have said it
		return fmt.Sprintf("start machine %q: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("start machine %q: stage %q: %v", e.Name, e.Stage, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *StartError) Hint() string {
	if h := hintOf(e.Err); h != "" {
		return h
	}
	return fmt.Sprintf("see `dev machine logs %s` and `dev machine logs --console %s`", e.Name, e.Name)
}

// SpecError lists what is wrong with a spec.
type SpecError struct {
	Name     string // file or machine
	Problems []string
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("read the spec of %q: %s", e.Name, strings.Join(e.Problems, "; "))
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
