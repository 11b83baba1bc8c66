// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newUpCommand(a *app) *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:     "up [OPTIONS] [SERVICE...]",
		Short:   "Make and start the application",
		GroupID: groupRun,
		Long: `Makes what the Compose file says and is not there, changes what is different, and
starts it, in the order of the dependencies. What is as it should be stays
untouched. Without -d the output of the containers is shown until they end; Ctrl-C
stops them, a second Ctrl-C at once.

If it is interrupted, even by a crash, the next dev up goes on from there.`,
		Example: `  dev up -d                    in the background
  dev up -d --wait             … and wait until all is healthy
  dev up --build web           build first; web and what it depends on only
  dev up -d --scale web=3      three containers of web
  dev up --exit-code-from test exit with the code of the service test`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			o.menuSet = c.Flags().Changed("menu")
			if err := o.check(); err != nil {
				return err
			}
			return a.runUp(c.Context(), o, args)
		},
	}
	o.register(c.Flags())
	return c
}

func newCreateCommand(a *app) *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:               "create [OPTIONS] [SERVICE...]",
		Short:             "Make containers without starting them",
		GroupID:           groupRun,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			o.noStart = true
			return a.runUp(c.Context(), o, args)
		},
	}
	o.createOptions.register(c.Flags())
	return c
}

func newScaleCommand(a *app) *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:     "scale [OPTIONS] SERVICE=NUM...",
		Short:   "Change how many containers services run",
		GroupID: groupRun,
		Example: `  dev scale web=3 worker=2`,
		Args:    takes(1, -1, "SERVICE=NUM"),
		RunE: func(c *cobra.Command, args []string) error {
			var services []string
			for _, arg := range args {
				name, _, _ := strings.Cut(arg, "=")
				services = append(services, name)
			}
			o.scale, o.detach = args, true
			return a.runUp(c.Context(), o, services)
		},
	}
	c.Flags().BoolVar(&o.noDeps, "no-deps", false, "leave the services that these depend on alone")
	return c
}

// upRun is one `up`: what it was asked and what it works with.
type upRun struct {
	a        *app
	o        upOptions
	services []string
	p        *types.Project
	whole    *types.Project // with the services of providers
	e        *engine.Client
	plan     compose.PlanOptions
	have     compose.Snapshot
	// begin is what was there before anything was done; nil as long as nothing is.
	begin *compose.Snapshot
	// staged: some services were brought up before others, as providers depend on them.
	staged bool
}

func (a *app) runUp(ctx context.Context, o upOptions, services []string) error {
	p, err := a.load(ctx, services...)
	if err != nil {
		return err
	}
	if len(p.Services) == 0 && !a.allResources {
		return noServices(p)
	}
	if err := errors.Join(a.tellPlace(ctx), a.trustRemote(ctx, p, o.yes)); err != nil {
		return err
	}
	u := &upRun{a: a, o: o, services: services, p: p, whole: p}
	if err := u.checkNames(); err != nil {
		return err
	}
	if err := u.settle(); err != nil {
		return err
	}
	if u.e, err = a.openEngine(ctx, needs(!a.dryRun)); err != nil {
		return err
	}
	defer u.e.Close()
	if err := a.fitToMachine(p); err != nil {
		return err
	}
	if err := a.unfinished(ctx, u.e, p.Name); err != nil && !a.dryRun {
		return err
	}
	u.takeProxies()
	if err := u.complete(ctx); err != nil {
		return u.undo(ctx, err)
	}
	plan, err := u.makePlan(ctx)
	if err != nil || a.dryRun {
		return err
	}
	if o.detach || o.noStart {
		return u.detached(ctx, plan)
	}
	return u.attached(ctx, plan)
}

// settle turns the flags into the options of the plan.
func (u *upRun) settle() (err error) {
	if u.plan, err = u.o.plan(u.a, u.p, u.services); err != nil {
		return err
	}
	u.plan.NoStart, u.plan.Wait = u.o.noStart, u.o.wait
	return nil
}

// takeProxies gives containers and builds the proxies that the user configured for the engine.
func (u *upRun) takeProxies() {
	u.plan.Environment = u.a.proxies(u.e)
	u.plan.BuildOptions.Proxy = u.plan.Environment
}

// complete takes in what providers and models tell.
func (u *upRun) complete(ctx context.Context) error {
	p, err := u.a.complete(ctx, u.p, u.e, externals{services: u.services, noDeps: u.o.noDeps, look: u.a.dryRun, bringUp: u.before})
	if err == nil {
		u.p = p
	}
	return err
}

// before brings up what the provider of a service depends on.
func (u *upRun) before(ctx context.Context, p *types.Project, s types.ServiceConfig) error {
	needed := compose.NeededBy(p, s)
	if len(needed) == 0 {
		return nil
	}
	first := &upRun{a: u.a, o: u.o, p: p, e: u.e, plan: u.plan, have: u.have}
	first.o.again, first.o.wait = true, false
	first.plan.Services, first.plan.Wait, first.plan.IgnoreOrphans, first.plan.RemoveOrphans = needed, false, true, false
	first.plan.ForceRecreate, first.plan.AlwaysRecreateDeps, first.plan.RenewAnonVolumes = false, false, false // once, with all the others
	first.plan.Scale = maps.Clone(u.plan.Scale)
	maps.DeleteFunc(first.plan.Scale, func(name string, _ int) bool { return !slices.Contains(needed, name) })
	plan, err := first.makePlan(ctx)
	if u.staged = true; u.begin == nil {
		u.begin = first.begin
	}
	if err != nil {
		return err
	}
	first.o.rollback = false // all of it is undone, or nothing
	if err := first.detached(ctx, plan); err != nil || u.o.noStart {
		return err
	}
	return u.a.awaitDependencies(ctx, u.e, p, s)
}

// noServices explains a project of which nothing is enabled.
func noServices(p *types.Project) error {
	err := errors.New("no service is enabled")
	profiles := p.AllServices().GetProfiles()
	slices.Sort(profiles)
	if len(profiles) == 0 {
		return withHint(err, "add one under services: in the Compose file")
	}
	return withHint(err, "all services are in profiles: enable one with dev --profile PROFILE up (%s)", strings.Join(profiles, ", "))
}

// checkNames refuses flags that name services which this `up` does not have.
func (u *upRun) checkNames() error {
	names := slices.Collect(maps.Keys(u.p.Services))
	given := slices.Concat(u.o.attach, u.o.noAttach)
	if u.o.exitCodeFrom != "" {
		given = append(given, u.o.exitCodeFrom)
	}
	for _, name := range given {
		if !slices.Contains(names, name) {
			return noSuchService(name, names)
		}
	}
	return nil
}

// makePlan observes and plans; with --dry-run it shows the plan. Where the plan depends on what a pull or build gives, those come first.
func (u *upRun) makePlan(ctx context.Context) (plan compose.Plan, err error) {
	if plan, err = u.observeAndPlan(ctx); err != nil {
		return plan, err
	}
	if !u.o.again {
		u.a.warnAll(plan.Warnings)
	}
	if u.a.dryRun {
		return plan, u.a.showPlan(plan)
	}
	if len(plan.Provisional) > 0 || u.o.waitTimeout > 0 && !plan.Images().Empty() {
		if err := u.a.applyAndExplain(ctx, u.e, u.p, plan.Images(), u.applyOptions("images")); err != nil {
			return plan, err
		}
		u.plan.ImagesReady = true
		if plan, err = u.observeAndPlan(ctx); err != nil {
			return plan, err
		}
	}
	if len(plan.DivergedVolumes) > 0 {
		return u.askForVolumes(ctx, plan)
	}
	return plan, nil
}

func (u *upRun) observeAndPlan(ctx context.Context) (compose.Plan, error) {
	var err error
	if u.have, err = u.e.Observe(ctx, compose.QueryFor(u.p)); err != nil {
		return compose.Plan{}, err
	}
	if u.begin == nil {
		begin := u.have
		u.begin = &begin
	}
	return compose.NewPlan(u.p, u.have, u.plan)
}

// askForVolumes asks whether volumes that were made with another configuration are to be made anew. Without an answer they are kept.
func (u *upRun) askForVolumes(ctx context.Context, plan compose.Plan) (compose.Plan, error) {
	for _, key := range plan.DivergedVolumes {
		name := u.p.Volumes[key].Name
		yes := u.o.yes
		if !yes {
			var err error
			yes, err = u.a.confirm(ctx, fmt.Sprintf("Volume %q was made with another configuration. Make it anew? ITS DATA IS LOST.", name))
			if err != nil {
				return plan, err
			}
		}
		if yes {
			u.plan.RecreateVolumes = append(u.plan.RecreateVolumes, key)
		}
	}
	if len(u.plan.RecreateVolumes) == 0 {
		return plan, nil
	}
	return compose.NewPlan(u.p, u.have, u.plan)
}

func (u *upRun) applyOptions(heading string) applyOptions {
	return applyOptions{heading: heading, quietPull: u.o.quietPull, quietBuild: u.o.quietBuild}
}

// detached applies the plan and leaves everything running.
func (u *upRun) detached(ctx context.Context, plan compose.Plan) error {
	ctx, cancel := waitDeadline(u.o.wait, u.o.waitTimeout).start(ctx)
	defer cancel()
	o := u.applyOptions("up")
	o.settled = settled(u.p, u.have, plan)
	return u.undo(ctx, u.a.applyAndExplain(ctx, u.e, u.p, plan, o))
}

// undo takes back what an `up` that failed with err has done, if that is asked for, and returns err. One that the user ends is left as it is, as the
// next goes on from there.
func (u *upRun) undo(ctx context.Context, err error) error {
	if err == nil || !u.o.rollback || u.begin == nil || errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	ctx = context.WithoutCancel(ctx) // a deadline of --wait-timeout is over
	now, observeErr := u.e.Observe(ctx, compose.QueryFor(u.p))
	if observeErr != nil {
		u.a.warn("nothing is undone: " + observeErr.Error())
		return err
	}
	plan, planErr := compose.NewRollbackPlan(u.p, *u.begin, now, u.o.timeout.value)
	if planErr != nil {
		u.a.warn("nothing is undone: " + planErr.Error())
		return err
	}
	u.a.warnAll(plan.Warnings)
	if plan.Empty() {
		u.a.say("There is nothing to undo")
		return err
	}
	u.a.say("Undoing what was done")
	_ = u.a.applyAndExplain(ctx, u.e, u.p, plan, applyOptions{heading: "rollback"}) // it says itself what is wrong
	return err
}

// settled are the containers of the project that the plan does not touch, as they are.
func settled(p *types.Project, have compose.Snapshot, plan compose.Plan) []status {
	touched := map[string]bool{}
	for _, op := range plan.Ops {
		touched[op.Target] = true
	}
	var rows []status
	for _, c := range have.Containers {
		_, known := p.Services[c.Service()]
		if target := "container " + c.Name; known && !c.OneOff() && !touched[target] {
			rows = append(rows, status{ID: title(target), Text: stateText(c), State: rowDone})
		}
	}
	return rows
}

// stateText says a container's state as a row does.
func stateText(c compose.Container) string {
	if c.State == compose.StateRunning && c.Health == compose.HealthHealthy {
		return "Healthy"
	}
	return title(string(c.State))
}
