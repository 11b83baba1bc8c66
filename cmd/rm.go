// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

func newRmCommand(a *app) *cobra.Command {
	var force, stop, volumes, all bool
	c := a.lifecycleCommand(&cobra.Command{
		Use: "rm", Short: "Remove stopped containers",
		Long: `Removes the stopped containers of the services, after a question. Data that is in no
volume is lost; volumes stay, those without a name too unless -v is given.`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "rm", nothing: "No stopped containers",
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				return compose.NewRemovePlan(name, p, have, compose.RemoveOptions{Services: args, Stop: stop, Volumes: volumes})
			},
			ask: func(plan compose.Plan) (bool, error) {
				if force {
					return true, nil
				}
				return a.confirm(c.Context(), "Going to remove "+strings.Join(removedContainers(plan), ", ")+". Are you sure?")
			},
		}, args)
	}
	f := c.Flags()
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.BoolVarP(&stop, "stop", "s", false, "stop running containers first")
	f.BoolVarP(&volumes, "volumes", "v", false, "remove the containers' anonymous volumes, too")
	f.BoolVarP(&all, "all", "a", false, "has no effect")
	_ = f.MarkHidden("all")
	return c
}

// removedContainers names the containers that a plan removes.
func removedContainers(plan compose.Plan) []string {
	var names []string
	for _, op := range plan.Ops {
		if op.Kind == compose.OpRemoveContainer {
			names = append(names, strings.TrimPrefix(op.Target, "container "))
		}
	}
	return names
}
