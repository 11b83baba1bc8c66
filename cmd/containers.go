// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"slices"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// onContainers gives f the engine and the containers of the project, one-offs included, and releases the engine after it. For commands that work on
// containers as they are: the Compose files are read for the project's name only.
func (a *app) onContainers(ctx context.Context, f func(e *engine.Client, have compose.Snapshot) error) error {
	name, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	return f(e, have)
}

// containersOf are the containers of the named services, of all if there are none.
func containersOf(have compose.Snapshot, services []string) []compose.Container {
	var out []compose.Container
	for _, c := range have.Containers {
		if len(services) == 0 || slices.Contains(services, c.Service()) {
			out = append(out, c)
		}
	}
	return out
}

// checkNames refuses services that neither have a container nor are in the Compose files, so that a mistyped name does not pass for one without
// containers.
func (a *app) checkNames(ctx context.Context, have compose.Snapshot, services []string) error {
	for _, s := range services {
		if slices.ContainsFunc(have.Containers, func(c compose.Container) bool { return c.Service() == s }) {
			continue
		}
		p, _, err := a.loadOrName(ctx)
		if err != nil {
			return err
		}
		if p == nil {
			return noContainer(s, 0, nil)
		}
		return checkServices(p, services)
	}
	return nil
}
