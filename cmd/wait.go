// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newWaitCommand(a *app) *cobra.Command {
	var downProject bool
	c := &cobra.Command{
		Use:     "wait [OPTIONS] SERVICE [SERVICE...]",
		Short:   "Wait until the containers of services have stopped",
		GroupID: groupRun,
		Long: `Waits until all containers of the services have stopped; those that have already count,
too. The exit status is that of the container that stopped last, or, if that is 0, of
one that failed.`,
		Args:              takes(1, -1, "SERVICE"),
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runWait(c.Context(), downProject, args)
		},
	}
	c.Flags().BoolVar(&downProject, "down-project", false, "stop and remove the application when the first container stops")
	return c
}

func (a *app) runWait(ctx context.Context, downProject bool, services []string) error {
	var code int
	err := a.onContainers(ctx, func(e *engine.Client, have compose.Snapshot) error {
		if err := a.checkNames(ctx, have, services); err != nil {
			return err
		}
		containers := containersOf(have, services)
		if len(containers) == 0 {
			return noContainer(services[0], 0, nil)
		}
		if a.dryRun {
			return a.sayDryRun("wait for %d containers", len(containers))
		}
		var err error
		code, err = a.waitFor(ctx, e, containers, downProject)
		return err
	})
	if err != nil {
		return err
	}
	if downProject {
		if err := a.downAll(ctx); err != nil {
			return err
		}
	}
	return exitWith(code)
}

// stopped is the end of a container.
type stopped struct {
	compose.Container
	code int
	err  error
}

// waitFor waits until all of the containers, or the first of them, have stopped, tells of each, and returns the exit code to pass on.
func (a *app) waitFor(ctx context.Context, e *engine.Client, containers []compose.Container, first bool) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	ends := make(chan stopped, len(containers))
	for _, c := range containers {
		waiting.Go(func() {
			code, err := e.WaitExit(ctx, c.ID)
			ends <- stopped{c, code, err}
		})
	}
	for range containers {
		end := <-ends
		if end.err != nil {
			return 0, fmt.Errorf("wait for container %q: %w", end.Name, end.err)
		}
		if _, err := fmt.Fprintf(a.out, "container %q exited with status code %d\n", end.ID, end.code); err != nil {
			return 0, err
		}
		if end.code != 0 || code == 0 {
			code = end.code
		}
		if first {
			break
		}
	}
	return code, nil
}

// downAll stops and removes the whole project, orphans included.
func (a *app) downAll(ctx context.Context) error {
	return a.runLifecycle(ctx, lifecycle{
		heading: "down",
		query: func(name string, p *types.Project) compose.Query {
			if p != nil {
				return compose.QueryFor(p)
			}
			return compose.Query{Project: name}
		},
		plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
			return compose.NewDownPlan(name, p, have, compose.DownOptions{RemoveOrphans: true})
		},
	}, nil)
}
