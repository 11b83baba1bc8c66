// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"

	"github.com/docker/cli/cli/config"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/endpoint"
)

// needs says what a command does when the engine that dev carries is the one to use and does not run.
type needs bool

const (
	startsEngine needs = true  // up, run, build, pull: start it
	wantsEngine  needs = false // the others: say so
)

// openEngine gives the command its engine; it is the one place that does. The caller closes it.
func (a *app) openEngine(ctx context.Context, n needs) (*engine.Client, error) {
	choice, err := a.resolveEngine(ctx, bool(n))
	if err != nil {
		return nil, err
	}
	if choice.Start && choice.Source == endpoint.SourceMachine {
		return nil, withHint(fmt.Errorf("machine %q, whose engine is in use, does not run", choice.Name), "dev machine start %s (dev up starts it by itself)", choice.Name)
	}
	if choice.Start {
		return nil, withHint(fmt.Errorf("the engine does not run"), "dev engine start (dev up starts it by itself)")
	}
	return engine.Open(engine.Options{
		Host: choice.Host, TLS: choice.TLS, Source: string(choice.Source),
		Environ: a.env, NewBuilder: a.newBuilder, Logger: a.logger(),
	})
}

// observeContainers lists the containers of a project, and nothing else of it.
func (a *app) observeContainers(ctx context.Context, project string) (compose.Snapshot, error) {
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return compose.Snapshot{}, err
	}
	defer e.Close()
	return e.Observe(ctx, compose.Query{Project: project, SkipNetworks: true, SkipVolumes: true})
}

// proxies are the variables that containers and builds get from the proxies section of the user's docker configuration. A configuration that
// cannot be read is a warning: most projects need none.
func (a *app) proxies(e *engine.Client) map[string]string {
	dir, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return nil
	}
	file, err := config.Load(dir)
	if err != nil {
		a.warn("no proxies from the docker configuration: " + err.Error())
		return nil
	}
	vars := map[string]string{}
	for name, value := range file.ParseProxyConfig(e.Host(), nil) {
		if value != nil {
			vars[name] = *value
		}
	}
	return vars
}
