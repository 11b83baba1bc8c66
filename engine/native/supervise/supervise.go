// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package supervise keeps a few long-lived programs running: it starts them
// together, learns from them that they are ready (the sd_notify protocol),
// restarts one that dies, with a growing delay, and stops them in order.
//
// Invariants: one goroutine owns a program from start to Wait; every program
// gets a signal from the kernel when its supervisor dies, whatever it dies of;
// output goes straight to a file, so that a supervisor that is slow or gone
// never blocks or kills a program by its pipe.
//
// It knows nothing about container engines.
package supervise

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Phase is where a program is in its life.
type Phase string

// The phases of a program.
const (
	Starting Phase = "starting" // the process runs but has not said that it is ready
	Running  Phase = "running"  // the process runs and is ready
	Waiting  Phase = "waiting"  // the process died and is started again after a delay
	Stopped  Phase = "stopped"  // the process was stopped and stays so
)

// Program says how to run one program.
type Program struct {
	// Name stands in states, errors and the name of its notify socket.
	Name string
	// Path is the executable; Args are its arguments without the name.
	Path string
	Args []string
	// Env is the whole environment. NOTIFY_SOCKET is added.
	Env []string
	// Log is the file that standard output and standard error are appended to.
	Log Log
	// Grace is the time between SIGTERM and SIGKILL when it is stopped; zero
	// means for ever.
	Grace time.Duration
	// DeathSignal is what the kernel sends it when the supervisor dies; zero is
	// SIGTERM.
	DeathSignal syscall.Signal
	// Prepare is called before each start; nil does nothing.
	Prepare func() error
}

// State is what one program does now.
type State struct {
	Name     string    `json:"name"`
	Phase    Phase     `json:"phase"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"` // when the phase began
	Restarts int       `json:"restarts"`
	LastExit *Exit     `json:"last_exit,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`        // "exit status 1", "signal: killed", or why it did not start
	Log    []string  `json:"log,omitempty"` // its last lines
	// Err is the reason as an error.
	Err error `json:"-"`
}

// ExitedError says that a program ended before it was ready.
type ExitedError struct {
	Name string
	Exit Exit
}

func (e *ExitedError) Error() string {
	return e.Name + " ended before it was ready: " + e.Exit.Reason
}

func (e *ExitedError) Unwrap() error { return e.Exit.Err }

// Lines are the last lines that the program wrote.
func (e *ExitedError) Lines() []string { return e.Exit.Log }

// NotReadyError says that programs run but did not become ready in time.
type NotReadyError struct {
	Names []string
	// Log are the last lines that they wrote.
	Log []string
	Err error
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("%s not ready: %v", strings.Join(e.Names, " and "), e.Err)
}

func (e *NotReadyError) Unwrap() error { return e.Err }

// Lines are the last lines that the programs wrote.
func (e *NotReadyError) Lines() []string { return e.Log }

// Delays before a restart: doubling from the first to the longest, from the
// beginning again after a process that lived long enough to be called healthy.
const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 30 * time.Second
	healthyAfter = 30 * time.Second
)

// backoff computes the delay before each restart.
type backoff struct{ last time.Duration }

// next is the delay after a process that lived for uptime.
func (b *backoff) next(uptime time.Duration) time.Duration {
	switch {
	case b.last == 0 || uptime >= healthyAfter:
		b.last = firstDelay
	default:
		b.last = min(2*b.last, longestDelay)
	}
	return b.last
}
