// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// lifecycle is a command that does something to containers that exist: it observes them, plans and applies.
type lifecycle struct {
	heading string
	// nothing is said when there is nothing to do; may be empty.
	nothing string
	plan    func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error)
	// ask may stop the command before it does anything; nil: go on.
	ask func(compose.Plan) (bool, error)
	// before is done before the plan is applied, and may stop the command; nil: nothing.
	before func(ctx context.Context, e *engine.Client, name string, have compose.Snapshot, plan compose.Plan) error
	// query is what to observe; nil: the containers only.
	query func(name string, p *types.Project) compose.Query
	// selects loads the named services, even of an inactive profile, and not the others.
	selects bool
	quiet   applyOptions
	timeout deadline
}

// runLifecycle runs such a command for the named services.
func (a *app) runLifecycle(ctx context.Context, l lifecycle, services []string) error {
	var load []string
	if l.selects {
		load = services
	}
	p, name, err := a.loadOrName(ctx, load...)
	if err != nil {
		return err
	}
	if p != nil {
		if err := checkServices(p, services); err != nil {
			return err
		}
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	query := compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true}
	if l.query != nil {
		query = l.query(name, p)
	}
	have, err := e.Observe(ctx, query)
	if err != nil {
		return err
	}
	plan, err := l.plan(name, p, have)
	if err != nil {
		return err
	}
	return a.carryOut(ctx, e, l, p, name, have, plan)
}

// carryOut applies the plan of a lifecycle command, after asking if it must.
func (a *app) carryOut(
	ctx context.Context, e *engine.Client, l lifecycle, p *types.Project, name string, have compose.Snapshot, plan compose.Plan,
) error {
	a.warnAll(plan.Warnings)
	switch {
	case a.dryRun:
		return a.showPlan(plan)
	case plan.Empty():
		if l.nothing != "" {
			a.say(l.nothing)
		}
		return nil
	}
	if l.ask != nil {
		if ok, err := l.ask(plan); err != nil || !ok {
			return err
		}
	}
	if l.before != nil {
		if err := l.before(ctx, e, name, have, plan); err != nil {
			return err
		}
	}
	ctx, cancel := l.timeout.start(ctx)
	defer cancel()
	o := l.quiet
	o.heading = l.heading
	if p != nil {
		o.provide = func(ctx context.Context, op compose.Op) error { return a.endProvider(ctx, e, p, op) }
	}
	return a.applyAndExplain(ctx, e, p, plan, o)
}

// lifecycleCommand fills in what the lifecycle commands have in common.
func (a *app) lifecycleCommand(c *cobra.Command) *cobra.Command {
	c.Use += " [OPTIONS] [SERVICE...]"
	c.GroupID = groupRun
	c.ValidArgsFunction = a.completeServices
	return c
}

func newStopCommand(a *app) *cobra.Command {
	var timeout seconds
	c := a.lifecycleCommand(&cobra.Command{
		Use: "stop", Short: "Stop containers without removing them",
		Long: `Stops the containers of the services, those that depend on others first. Each gets
its stop signal and grace period, then it is killed. dev start starts them again.`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "stop",
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				return compose.NewStopPlan(name, p, have, compose.StopOptions{Services: args, Timeout: timeout.value})
			},
		}, args)
	}
	c.Flags().VarP(&timeout, "timeout", "t", "seconds that containers get to stop, instead of their own grace period")
	return c
}

func newStartCommand(a *app) *cobra.Command {
	var wait bool
	var waitTimeout int
	c := a.lifecycleCommand(&cobra.Command{
		Use: "start", Short: "Start containers that exist",
		Long: `Starts the containers of the services as they were made, in the order of their
dependencies. dev up also makes what is missing and applies changes.`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		if waitTimeout < 0 {
			return usagef("--wait-timeout must not be negative")
		}
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "start", selects: true, timeout: waitDeadline(wait, waitTimeout),
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				return compose.NewStartPlan(name, p, have, compose.StartOptions{Services: args, Wait: wait})
			},
		}, args)
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until services run and are healthy")
	c.Flags().IntVar(&waitTimeout, "wait-timeout", 0, "most `SECONDS` to wait with --wait")
	return c
}

func newRestartCommand(a *app) *cobra.Command {
	var timeout seconds
	var noDeps bool
	c := a.lifecycleCommand(&cobra.Command{
		Use: "restart", Short: "Restart containers as they were made",
		Long: `Restarts the containers of the services. They stay as they were made: where the
Compose file says something else by now, a warning names it, and dev up applies it.`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "restart",
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				return compose.NewRestartPlan(name, p, have, compose.RestartOptions{Services: args, NoDeps: noDeps, Timeout: timeout.value})
			},
		}, args)
	}
	c.Flags().VarP(&timeout, "timeout", "t", "seconds that containers get to stop, instead of their own grace period")
	c.Flags().BoolVar(&noDeps, "no-deps", false, "leave services that depend on these alone")
	return c
}

func newKillCommand(a *app) *cobra.Command {
	var signal string
	var removeOrphans bool
	c := a.lifecycleCommand(&cobra.Command{
		Use: "kill", Short: "Send a signal to containers, by default one that ends them at once",
		Example: `  dev kill -s SIGHUP web      tell web to read its configuration again`,
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{
			heading: "kill", nothing: "No container to kill",
			plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
				orphans := removeOrphans || isTrue(a.setting(p, "COMPOSE_REMOVE_ORPHANS"))
				return compose.NewKillPlan(name, p, have, compose.KillOptions{Services: args, Signal: signal, RemoveOrphans: orphans})
			},
		}, args)
	}
	c.Flags().StringVarP(&signal, "signal", "s", "SIGKILL", "`SIGNAL` to send")
	c.Flags().BoolVar(&removeOrphans, "remove-orphans", false, "also those of services that the Compose file no longer has")
	return c
}

func newPauseCommand(a *app) *cobra.Command {
	c := a.lifecycleCommand(&cobra.Command{Use: "pause", Short: "Freeze the processes of containers"})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{heading: "pause", plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
			return compose.NewPausePlan(name, p, have, compose.PauseOptions{Services: args})
		}}, args)
	}
	return c
}

func newUnpauseCommand(a *app) *cobra.Command {
	c := a.lifecycleCommand(&cobra.Command{Use: "unpause", Short: "Let paused containers go on"})
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.runLifecycle(c.Context(), lifecycle{heading: "unpause", plan: func(name string, p *types.Project, have compose.Snapshot) (compose.Plan, error) {
			return compose.NewUnpausePlan(name, p, have, compose.PauseOptions{Services: args})
		}}, args)
	}
	return c
}
