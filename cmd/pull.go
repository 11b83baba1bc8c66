// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

func newPullCommand(a *app) *cobra.Command {
	var o compose.PullOptions
	var quiet, parallel, noParallel bool
	c := &cobra.Command{
		Use:               "pull [OPTIONS] [SERVICE...]",
		Short:             "Pull the images of services",
		GroupID:           groupImages,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			switch o.Policy {
			case "", types.PullPolicyAlways, types.PullPolicyMissing:
			default:
				return usagef("unknown --policy value %q: use missing or always", o.Policy)
			}
			o.Services = args
			return a.runImagesPlan(c.Context(), imagesPlan{
				heading: "pull", services: args, quiet: quiet,
				plan: func(p *types.Project, have compose.Snapshot, _ map[string]string) (compose.Plan, error) {
					return compose.NewPullPlan(p, have, o)
				},
			})
		},
	}
	f := c.Flags()
	f.BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.IncludeDeps, "include-deps", false, "pull for the services that these depend on, too")
	f.BoolVar(&o.IgnoreFailures, "ignore-pull-failures", false, "go on without images that cannot be pulled")
	f.BoolVar(&o.IgnoreBuildable, "ignore-buildable", false, "leave out images that are built")
	f.StringVar(&o.Policy, "policy", "", "when to pull: missing or always")
	f.BoolVar(&parallel, "parallel", true, "has no effect")
	f.BoolVar(&noParallel, "no-parallel", false, "has no effect")
	for _, name := range []string{"parallel", "no-parallel"} {
		_ = f.MarkHidden(name)
	}
	return c
}

// imagesPlan is a command that makes images: pull, build.
type imagesPlan struct {
	heading  string
	services []string
	quiet    bool
	all      bool // load all services: builds may use the images of others
	plan     func(p *types.Project, have compose.Snapshot, proxies map[string]string) (compose.Plan, error)
}

func (a *app) runImagesPlan(ctx context.Context, x imagesPlan) error {
	var load []string
	if !x.all {
		load = x.services
	}
	p, err := a.load(ctx, load...)
	if err != nil {
		return err
	}
	if err := checkServices(p, x.services); err != nil {
		return err
	}
	if p, err = p.WithServicesEnabled(x.services...); err != nil {
		return err
	}
	e, err := a.openEngine(ctx, needs(!a.dryRun))
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.QueryFor(p))
	if err != nil {
		return err
	}
	plan, err := x.plan(p, have, a.proxies(e))
	if err != nil {
		return err
	}
	a.warnAll(plan.Warnings)
	if a.dryRun {
		return a.showPlan(plan)
	}
	return a.applyAndExplain(ctx, e, p, plan, applyOptions{heading: x.heading, quiet: x.quiet})
}
