// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package cmd is the command line of dev: the cobra tree, rendering, prompts and exit codes; one command per file.
//
// A command turns flags into options, calls the packages below and renders what they return; it holds no domain logic. This is the only package
// that prints, prompts, handles signals or ends the process. stdout is data, stderr is talk.
//
// The commands that docker compose has are mounted twice, as `dev X` and as `dev compose X`, with the same flags. Flags of dev
// itself (see globals) stand before the command.
package cmd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/remote"
	"github.com/seed71221737/dev/machine"
)

// app is what every command is given: where to read and write, and the global flags. Tests make one of their own.
type app struct {
	in       io.Reader
	out, err io.Writer
	// env is the process environment, passed explicitly from here on.
	env []string
	// cwd is the folder the user stands in.
	cwd string
	// program is the path or name that the program was called by; empty is dev.
	program string
	// dockerName is the name that docker compose has where the program stands in for it, else empty.
	dockerName string
	// fetcher fetches Compose files, once one is asked for; offline forbids it: nothing is fetched to complete a word.
	fetcher      *remote.Fetcher
	offline      bool
	serveMachine ServeMachine
	// interrupts tells of Ctrl-C; nil in tests.
	interrupts *interrupts
	// machine is the machine whose engine serves this command; nil for any other engine.
	machine *machine.Machine
	globals
	// fitted is the environment that the project was loaded for; nil in main.
	fitted *fitted
	// given are the variables of the providers that have been asked, modelEndpoint is where models are served, once that is known.
	given         map[string]compose.Variables
	modelEndpoint string
	// envPorts is the range that the environment is to take its ports from; empty: what is set for all.
	envPorts string
	// lookOnly: what an environment would be given is not remembered.
	lookOnly bool
	// unlocked are the project's images that its lock file lacks.
	unlocked []string

	mu sync.Mutex
	// undo gives the terminal back: what raw mode and live progress changed, newest last.
	undo []func()
	// live is the progress shown right now, if any: talk goes through it.
	live progress
}

// Main runs the command line of this process and returns its exit code.
func Main() int { return MainWith(nil) }

// MainWith is Main in a program that links the body of a host agent; nil is none.
func MainWith(serve ServeMachine) int {
	// Most commands live for milliseconds and allocate a few megabytes. At Go's default the collector runs three times in that, which costs
	// as much processor time as the command itself; with this it runs once in the largest of them. More costs memory and saves no time.
	debug.SetGCPercent(200)
	// compose-go and others log through this; what matters of it reaches the user as a warning with file and line.
	logrus.SetOutput(io.Discard)
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "."
	}
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ(), cwd: cwd, program: os.Args[0], serveMachine: serve}
	defer a.restoreTerminal()
	ctx, interrupts, stop := handleInterrupts(context.Background(), func() {
		a.restoreTerminal()
		fmt.Fprintln(os.Stderr, "aborted")
		os.Exit(exitCancelled)
	})
	defer stop()
	a.interrupts = interrupts
	defer a.followDockerCLI()()
	return a.run(ctx, os.Args[1:])
}

// run executes one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.commandTree(args)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.exitCode(ctx, root.ExecuteContext(ctx))
}

// getenv looks a variable up in the process environment; the last one wins, as in a shell.
func (a *app) getenv(name string) string {
	value, _ := a.lookupEnv(name)
	return value
}

func (a *app) lookupEnv(name string) (value string, ok bool) {
	for _, kv := range a.env {
		if k, v, found := strings.Cut(kv, "="); found && k == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// environment is the process environment as a map.
func (a *app) environment() map[string]string {
	m := make(map[string]string, len(a.env))
	for _, kv := range a.env {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			m[k] = v
		}
	}
	return m
}

// logger writes what --debug asks for to stderr, else nothing below warnings.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// onRestore remembers how to give the terminal back if the process must end at once; the returned func forgets it and does it now.
func (a *app) onRestore(f func()) (now func()) {
	var once sync.Once
	do := func() { once.Do(f) }
	a.mu.Lock()
	defer a.mu.Unlock()
	a.undo = append(a.undo, do)
	return do
}

// restoreTerminal undoes all that changed the terminal, newest first. It is safe to call at any moment, more than once.
func (a *app) restoreTerminal() {
	a.mu.Lock()
	undo := a.undo
	a.undo = nil
	a.mu.Unlock()
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
}
