// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"runtime"

	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/native"
)

// resolveEngine decides which engine serves this command. With start, the engine that dev carries, or the machine in use, is started when it is
// the one and does not run; and where there is no engine and none can run natively, a machine is made.
func (a *app) resolveEngine(ctx context.Context, start bool) (endpoint.Choice, error) {
	choice, err := a.decideEngine(ctx, false)
	if err != nil && start {
		if err = a.makeFirstMachine(ctx, err); err == nil {
			choice, err = a.decideEngine(ctx, false)
		}
	}
	if err == nil && choice.Source == endpoint.SourceMachine {
		return a.startMachine(ctx, choice, start)
	}
	if err != nil || !start || !choice.Start {
		return choice, err
	}
	s, settings, err := a.startableService()
	if err != nil {
		return choice, err
	}
	began := a.announceStart(s)
	if err := s.Ensure(ctx, settings); err != nil {
		a.showComponentLog(err)
		return choice, err
	}
	began()
	choice.Start = false
	return choice, nil
}

// decideEngine decides without starting anything; with all it looks at every candidate.
func (a *app) decideEngine(ctx context.Context, all bool) (endpoint.Choice, error) {
	dir, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return endpoint.Choice{}, err
	}
	in := endpoint.Inputs{Flag: a.host, Getenv: a.getenv, Machine: a.machineEngine, Embedded: endpoint.Embedded{Host: native.DefaultPaths(a.getenv).Host()}, All: all}
	if runtime.GOOS != "linux" {
		in.Embedded = endpoint.Embedded{Why: "it runs natively only on Linux; `dev machine create` makes a machine for it"}
	}
	return endpoint.Resolve(ctx, in, endpoint.Docker{Dir: dir})
}
