// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

type psOptions struct {
	all, quiet, services, orphans, noTrunc bool
	format, filter                         string
	status                                 []string
}

func newPsCommand(a *app) *cobra.Command {
	var o psOptions
	c := &cobra.Command{
		Use:     "ps [OPTIONS] [SERVICE...]",
		Short:   "List the containers of the application",
		GroupID: groupLook,
		Example: `  dev ps -a                             stopped containers, too
  dev ps --format json                  one JSON object a line
  dev ps --format '{{.Name}} {{.State}}'`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.runPs(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "list stopped containers and those of run, too")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show only IDs")
	f.BoolVar(&o.services, "services", false, "show only the names of services")
	f.BoolVar(&o.orphans, "orphans", true, "list containers of services that the Compose file no longer has")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show long values in full")
	f.StringVar(&o.format, "format", "table", "table, json, or a Go template; table TEMPLATE adds a header")
	f.StringVar(&o.filter, "filter", "", "list only containers with a `KEY=VALUE`; the key is status")
	f.StringArrayVar(&o.status, "status", nil, "list only containers with this `STATUS`; may be repeated")
	return c
}

var containerStates = []string{"paused", "restarting", "removing", "running", "dead", "created", "exited"}

// check reads --filter into --status and refuses states that no container has.
func (o *psOptions) check() error {
	if o.filter != "" {
		key, value, ok := strings.Cut(o.filter, "=")
		if !ok || key != "status" {
			return usagef("unknown filter %q: use status=STATUS", o.filter)
		}
		o.status = append(o.status, value)
	}
	for _, s := range o.status {
		if !slices.Contains(containerStates, s) {
			return usagef("unknown status %q: use %s", s, strings.Join(containerStates, ", "))
		}
	}
	return nil
}

// pick chooses the containers to list, in the snapshot's order, which is by name.
func (o psOptions) pick(p *types.Project, all []compose.Container, services []string) []compose.Container {
	if p != nil && len(services) == 0 && !o.orphans {
		services = p.ServiceNames()
	}
	var out []compose.Container
	for _, c := range all {
		switch {
		case len(services) > 0 && !slices.Contains(services, c.Service()):
		case !o.orphans && p != nil && !slices.Contains(services, c.Service()):
		case c.OneOff() && !o.all && len(o.status) == 0:
		case len(o.status) > 0 && !slices.Contains(o.status, string(c.State)):
		case len(o.status) == 0 && !o.all && !up(c.State):
		default:
			out = append(out, c)
		}
	}
	return out
}

// up reports whether a container in this state is listed without --all.
func up(s compose.State) bool {
	return s == compose.StateRunning || s == compose.StatePaused || s == compose.StateRestarting
}

func (a *app) runPs(ctx context.Context, o psOptions, services []string) error {
	var p *types.Project
	var name string
	var err error
	if len(services) > 0 || !o.orphans {
		p, name, err = a.loadOrName(ctx)
	} else { // who wants all need not know which services there are
		name, err = a.projectNameOnly(ctx)
	}
	if err != nil {
		return err
	}
	if p != nil {
		if err := checkServices(p, services); err != nil {
			return err
		}
	}
	have, err := a.observeContainers(ctx, name)
	if err != nil {
		return err
	}
	return o.show(a, o.pick(p, have.Containers, services))
}

func (o psOptions) show(a *app, containers []compose.Container) error {
	switch {
	case o.quiet:
		var ids []string
		for _, c := range containers {
			ids = append(ids, c.ID)
		}
		return a.printLines(ids)
	case o.services:
		var names []string
		for _, c := range containers {
			if !slices.Contains(names, c.Service()) {
				names = append(names, c.Service())
			}
		}
		return a.printLines(names)
	}
	ctx := formatter.Context{Output: a.out, Format: psFormat(o.format), Trunc: !o.noTrunc}
	err := ctx.Write(newPsRow(), func(write func(formatter.SubContext) error) error {
		for _, c := range containers {
			if err := write(&psRow{c: c, trunc: ctx.Trunc}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return withHint(fmt.Errorf("use --format %q: %w", o.format, err), "see dev ps --format json for the fields")
	}
	return nil
}
