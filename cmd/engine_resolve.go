// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"runtime"

	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/native"
)

// resolveEngine decides which engine serves this command. With start, the engine that dev carries is started when it is the one and
// does not run.
func (a *app) resolveEngine(ctx context.Context, start bool) (endpoint.Choice, error) {
	choice, err := a.decideEngine(ctx, false)
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
	in := endpoint.Inputs{Flag: a.host, Getenv: a.getenv, Embedded: endpoint.Embedded{Host: native.DefaultPaths(a.getenv).Host()}, All: all}
	if runtime.GOOS != "linux" {
		in.Embedded = endpoint.Embedded{Why: "it runs natively only on Linux"}
	}
	return endpoint.Resolve(ctx, in, endpoint.Docker{Dir: dir})
}
