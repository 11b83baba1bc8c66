// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package tui is the terminal interface of `dev ui`: the services of one application with their health, ports and use, the output of one of them, and
// keys that act on it.
//
// It shows and asks; what it shows and does comes from a [Source]. Before an action is carried out its plan is shown and confirmed. It fits
// 80 by 24 characters, uses no mouse and no more than the sixteen colors, so that it works over ssh.
package tui

import (
	"context"
	"io"
	"os/exec"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Service is one row.
type Service struct {
	Name string
	// State is running, exited (1), …; Health is empty where there is no check.
	State, Health string
	Ports         string
	CPU, Memory   string
}

// Action is something to do with a service.
type Action string

// The actions.
const (
	Start   Action = "start"
	Stop    Action = "stop"
	Restart Action = "restart"
	Rebuild Action = "rebuild"
	Up      Action = "up"
)

// Plan is what an action comes to: a line for each step, and what carries it out.
type Plan struct {
	Steps []string
	Do    func(context.Context) error
}

// Source is the application. Its methods are called from several goroutines at once.
type Source interface {
	// Services gives the rows as they are now.
	Services(ctx context.Context) ([]Service, error)
	// Logs gives the output of a service's containers to emit, from its last lines on, until ctx ends.
	Logs(ctx context.Context, service string, emit func(line string)) error
	// Plan says what an action would do.
	Plan(ctx context.Context, action Action, service string) (Plan, error)
	// Shell is a command that opens a shell in a container of the service.
	Shell(service string) *exec.Cmd
}

// Options say where the interface is.
type Options struct {
	Title   string
	In      io.Reader
	Out     io.Writer
	Environ []string
	Color   bool
}

// refresh is how often services are looked at; the next look waits for the one before.
const refresh = time.Second

// Run shows the interface until the user leaves it or ctx ends.
func Run(ctx context.Context, source Source, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	m := newModel(ctx, source, o.Title, o.Color, &tasks)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out), tea.WithEnvironment(o.Environ), tea.WithoutSignalHandler())
	_, err := p.Run()
	cancel()
	tasks.Wait()
	return err
}
