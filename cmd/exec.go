// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

type execOptions struct {
	detach, privileged, noTTY, interactive bool
	env                                    []string
	index                                  int
	user, workdir, detachKeys              string
}

func newExecCommand(a *app) *cobra.Command {
	var o execOptions
	var tty bool
	c := &cobra.Command{
		Use:     "exec [OPTIONS] SERVICE COMMAND [ARGS...]",
		Short:   "Run a command in a running container",
		GroupID: groupRun,
		Long: `Runs a command in a running container of the service, with your terminal if there is
one. The exit status is the command's.`,
		Example: `  dev exec web sh
  dev exec -T db pg_dump shop > shop.sql    without a terminal, for pipes
  dev exec --index 2 web hostname           the second container`,
		Args:              takes(2, -1, "SERVICE COMMAND"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case c.Flags().Changed("tty"):
				o.noTTY = !tty
			case !c.Flags().Changed("no-tty"):
				o.noTTY = !isTerminal(a.out) || !isTerminal(a.in)
			}
			return a.runExec(c.Context(), o, args[0], args[1:])
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "leave the command running in the background")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME to pass on your own; may be repeated")
	f.IntVar(&o.index, "index", 0, "`NUMBER` of the container, when the service has several")
	f.BoolVarP(&o.noTTY, "no-tty", "T", false, "give the command no terminal (the default when input or output is none)")
	f.BoolVar(&o.privileged, "privileged", false, "give the command all privileges")
	f.StringVarP(&o.user, "user", "u", "", "run as this `USER`: name or number, with :GROUP if need be")
	f.StringVarP(&o.workdir, "workdir", "w", "", "`FOLDER` in the container to run in")
	f.StringVar(&o.detachKeys, "detach-keys", "", "`KEYS` that leave the command running (default: ctrl-p,ctrl-q)")
	f.BoolVarP(&o.interactive, "interactive", "i", true, "pass on standard input")
	f.BoolVarP(&tty, "tty", "t", true, "give the command a terminal")
	_ = f.MarkHidden("interactive")
	_ = f.MarkHidden("tty")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "no-TTY" {
			name = "no-tty"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

func (a *app) runExec(ctx context.Context, o execOptions, service string, command []string) error {
	name, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	c, err := a.findContainer(ctx, e, name, service, o.index)
	if err != nil {
		return err
	}
	if a.dryRun {
		return a.sayDryRun("run %q in container %s", command, c.Name)
	}
	x := engine.ExecOptions{
		Command: command, User: o.user, WorkingDir: o.workdir, Env: a.ownVariables(o.env), Privileged: o.privileged, TTY: !o.noTTY, Detach: o.detach,
		Streams: engine.Streams{Out: a.out, Err: a.err, Terminal: a.console(), DetachKeys: o.detachKeys},
	}
	if o.interactive {
		x.In = a.in
	}
	return detachedIsFine(e.Exec(ctx, c.ID, x))
}

// detachedIsFine makes leaving by the detach keys a success.
func detachedIsFine(err error) error {
	if errors.Is(err, engine.ErrDetached) {
		return nil
	}
	return err
}

// ownVariables gives NAME the value that it has in the process environment; NAME=VALUE stays. A name without a value is left out.
func (a *app) ownVariables(vars []string) []string {
	var out []string
	for _, v := range vars {
		if slices.Contains([]byte(v), '=') {
			out = append(out, v)
		} else if value, ok := a.lookupEnv(v); ok {
			out = append(out, v+"="+value)
		}
	}
	return out
}

// sayDryRun says what a command that plans nothing would do.
func (a *app) sayDryRun(format string, args ...any) error {
	_, err := fmt.Fprintf(a.out, "would "+format+"\n", args...)
	return err
}

// findContainer finds the running container of a service: the one with a number, else the lowest.
func (a *app) findContainer(ctx context.Context, e compose.Engine, project, service string, index int) (compose.Container, error) {
	have, err := e.Observe(ctx, compose.Query{Project: project, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return compose.Container{}, err
	}
	return pickContainer(have, service, index)
}

// pickContainer chooses among the containers of a service, running ones first, by number; it must run.
func pickContainer(have compose.Snapshot, service string, index int) (compose.Container, error) {
	c, err := pickAnyContainer(have, service, index)
	if err == nil && !up(c.State) {
		return c, withHint(fmt.Errorf("service %q is not running: container %s is %s", service, c.Name, c.State), "dev up -d %s, or dev why %s", service, service)
	}
	return c, err
}

// pickAnyContainer is pickContainer for what works on stopped containers, too.
func pickAnyContainer(have compose.Snapshot, service string, index int) (compose.Container, error) {
	number := func(c compose.Container) int {
		n, _ := strconv.Atoi(c.Labels[compose.LabelContainerNumber])
		return n
	}
	var names []string
	var found []compose.Container
	for _, c := range have.Containers {
		if c.OneOff() {
			continue
		}
		if !slices.Contains(names, c.Service()) {
			names = append(names, c.Service())
		}
		if c.Service() == service && (index == 0 || number(c) == index) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return compose.Container{}, noContainer(service, index, names)
	}
	slices.SortStableFunc(found, func(x, y compose.Container) int {
		if up(x.State) != up(y.State) {
			if up(x.State) {
				return -1
			}
			return 1
		}
		return cmp.Compare(number(x), number(y))
	})
	return found[0], nil
}

// noContainer explains a service without the container that was asked for; names are the services that have some.
func noContainer(service string, index int, names []string) error {
	switch {
	case slices.Contains(names, service):
		return fmt.Errorf("service %q has no container number %d", service, index)
	case nearest(service, names) != "":
		return withHint(fmt.Errorf("service %q is not running: it has no container", service), "did you mean %q?", nearest(service, names))
	}
	return withHint(fmt.Errorf("service %q is not running: it has no container", service), "dev up -d %s", service)
}
