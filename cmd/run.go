// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/mattn/go-shellwords"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

type runOptions struct {
	compose.OneOff
	createOptions
	noTTY, quiet bool
	envFiles     []string
}

func newRunCommand(a *app) *cobra.Command {
	var o runOptions
	var tty bool
	var entrypoint string
	c := &cobra.Command{
		Use:     "run [OPTIONS] SERVICE [COMMAND] [ARGS...]",
		Short:   "Run a command in a new container of a service",
		GroupID: groupRun,
		Long: `Makes a container of its own from the service, for one command, and starts what the
service depends on first. Its ports are not published unless you ask for it. The exit
status is the command's.`,
		Example: `  dev run --rm web sh
  dev run --rm -e DEBUG=1 web ./migrate
  dev run --rm -T db psql < dump.sql`,
		Args:              takes(1, -1, "SERVICE"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			f := c.Flags()
			switch {
			case f.Changed("tty") && f.Changed("no-TTY"):
				return usagef("--tty and --no-TTY exclude each other")
			case f.Changed("tty"):
				o.noTTY = !tty
			case !f.Changed("no-TTY"):
				o.noTTY = !isTerminal(a.out) || !isTerminal(a.in)
			}
			if len(o.Publish) > 0 && o.ServicePorts {
				return usagef("--service-ports and --publish exclude each other")
			}
			if f.Changed("entrypoint") {
				words, err := shellwords.Parse(entrypoint)
				if err != nil {
					return usagef("read --entrypoint %q: %v", entrypoint, err)
				}
				o.Entrypoint = append([]string{}, words...)
			}
			if err := o.check(); err != nil {
				return err
			}
			o.Command = args[1:]
			return a.runRun(c.Context(), o, args[0])
		},
	}
	o.register(c.Flags())
	c.Flags().StringVar(&entrypoint, "entrypoint", "", "`COMMAND` to run instead of the image's entry point")
	c.Flags().BoolVarP(&tty, "tty", "t", true, "give the container a terminal")
	_ = c.Flags().MarkHidden("tty")
	return c
}

func (o *runOptions) register(f *pflag.FlagSet) {
	f.SetInterspersed(false)
	f.BoolVarP(&o.Detach, "detach", "d", false, "leave the container running in the background and show its ID")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME to pass on your own; may be repeated")
	f.StringArrayVar(&o.envFiles, "env-from-file", nil, "set the variables of a `FILE`; may be repeated")
	f.StringArrayVarP(&o.Labels, "label", "l", nil, "set a label: `NAME=VALUE`; may be repeated")
	f.BoolVar(&o.AutoRemove, "rm", false, "remove the container when it ends")
	f.BoolVarP(&o.noTTY, "no-TTY", "T", false, "give the container no terminal (the default when input or output is none)")
	f.BoolVarP(&o.Stdin, "interactive", "i", true, "pass on standard input")
	f.StringVar(&o.Name, "name", "", "`NAME` of the container")
	f.StringVarP(&o.User, "user", "u", "", "run as this `USER`: name or number, with :GROUP if need be")
	f.StringVarP(&o.WorkingDir, "workdir", "w", "", "`FOLDER` in the container to run in")
	f.StringArrayVar(&o.CapAdd, "cap-add", nil, "add a `CAPABILITY` of Linux; may be repeated")
	f.StringArrayVar(&o.CapDrop, "cap-drop", nil, "take a `CAPABILITY` of Linux away; may be repeated")
	f.BoolVar(&o.noDeps, "no-deps", false, "do not start what the service depends on")
	f.StringArrayVarP(&o.Volumes, "volume", "v", nil, "mount a `VOLUME`: SOURCE:TARGET[:ro]; may be repeated")
	f.StringArrayVarP(&o.Publish, "publish", "p", nil, "publish a `PORT`: HOST:CONTAINER; may be repeated")
	f.BoolVar(&o.UseAliases, "use-aliases", false, "give the container the service's names on its networks")
	f.BoolVarP(&o.ServicePorts, "service-ports", "P", false, "publish the service's ports")
	f.StringVar(&o.pull, "pull", "policy", "when to pull images: always, missing, never; policy: as the Compose file says")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.quietBuild, "quiet-build", false, "show no output of builds")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.BoolVar(&o.build, "build", false, "build the image first")
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "remove containers of services that the Compose file no longer has")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "volumes":
			name = "volume"
		case "labels":
			name = "label"
		case "no-tty":
			name = "no-TTY"
		}
		return pflag.NormalizedName(name)
	})
}

func (a *app) runRun(ctx context.Context, o runOptions, service string) error {
	p, err := a.loadForRun(ctx, service)
	if err != nil {
		return err
	}
	if err := a.trustRemote(ctx, p, false); err != nil {
		return err
	}
	if err := errors.Join(o.fill(a), a.tellPlace(ctx)); err != nil {
		return err
	}
	orphans, err := a.orphanSettings(p, o.removeOrphans)
	if err != nil {
		return err
	}
	ro := compose.RunOptions{
		Service: service, OneOff: o.OneOff, NoDeps: o.noDeps, Build: o.build, RemoveOrphans: orphans.remove, IgnoreOrphans: orphans.ignore,
	}
	if o.pull != "policy" {
		ro.Pull = o.pull
	}
	e, err := a.openEngine(ctx, needs(!a.dryRun))
	if err != nil {
		return err
	}
	defer e.Close()
	if err := a.fitToMachine(p); err != nil {
		return err
	}
	if err := a.unfinished(ctx, e, p.Name); err != nil && !a.dryRun {
		return err
	}
	ro.Environment = a.proxies(e)
	ro.BuildOptions.Proxy = ro.Environment
	first := &upRun{a: a, p: p, e: e, plan: compose.PlanOptions{Pull: ro.Pull, Environment: ro.Environment, BuildOptions: ro.BuildOptions}}
	first.o.quietPull, first.o.quietBuild = o.quietPull, o.quietBuild
	if p, err = a.complete(ctx, p, e, externals{services: []string{service}, noDeps: o.noDeps, look: a.dryRun, bringUp: first.before}); err != nil {
		return err
	}
	id, err := a.makeOneOff(ctx, e, p, o, ro)
	if err != nil || a.dryRun {
		return err
	}
	if o.Detach {
		_, err := fmt.Fprintln(a.out, id)
		return err
	}
	return a.attachOneOff(ctx, e, id, o)
}

// loadForRun loads the project with a service, or with a job as one.
func (a *app) loadForRun(ctx context.Context, name string) (*types.Project, error) {
	p, err := a.load(ctx, name)
	if err == nil || slices.Contains(a.files, "-") {
		return p, err
	}
	o, optionsErr := a.loadOptions()
	if optionsErr != nil {
		return nil, optionsErr
	}
	o.Warn, o.AllResources = nil, true // the first attempt has told; the job may use what no service does
	if all, loadErr := a.loadWith(ctx, o, nil); loadErr == nil && hasJob(all, name) {
		return compose.WithJob(all, name)
	}
	return nil, err
}

func hasJob(p *types.Project, name string) bool {
	_, ok := p.Jobs[name]
	return ok
}

// fill completes the one-off container: a slug for its name, the variables of --env-from-file, the terminal.
func (o *runOptions) fill(a *app) error {
	slug := make([]byte, 32)
	if _, err := rand.Read(slug); err != nil {
		return err
	}
	o.Slug = hex.EncodeToString(slug)
	o.Tty = !o.noTTY
	o.Stdin = o.Stdin && !o.Detach || o.Stdin && o.Tty
	for _, l := range o.Labels {
		if !strings.Contains(l, "=") {
			return usagef("read --label %q: write NAME=VALUE", l)
		}
	}
	fromFiles, err := a.variablesOfFiles(o.envFiles, o.Env)
	o.Env = append(fromFiles, o.Env...)
	return err
}

// variablesOfFiles reads files of variables. Those given by -e are seen by them and win.
func (a *app) variablesOfFiles(files, given []string) ([]string, error) {
	set := types.NewMappingWithEquals(given).Resolve(a.lookupEnv).ToMapping()
	var out []string
	for _, file := range files {
		path, err := a.path(file)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read --env-from-file: %w", err)
		}
		vars, err := dotenv.ParseWithLookup(f, func(name string) (string, bool) {
			v, ok := set[name]
			return v, ok
		})
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read --env-from-file %q: %w", file, err)
		}
		for name, value := range vars {
			out = append(out, name+"="+value)
		}
	}
	return out, nil
}

// makeOneOff brings up what the one-off container needs, creates it, and gives its ID.
func (a *app) makeOneOff(ctx context.Context, e *engine.Client, p *types.Project, o runOptions, ro compose.RunOptions) (id string, err error) {
	query := compose.QueryFor(p)
	have, err := e.Observe(ctx, query)
	if err != nil {
		return "", err
	}
	plan, err := compose.NewRunPlan(p, have, ro)
	if err != nil {
		return "", err
	}
	a.warnAll(plan.Warnings)
	if a.dryRun {
		return "", a.showPlan(plan)
	}
	f := &failures{}
	var made lastContainer
	ao := applyOptions{heading: "run", quiet: o.quiet, quietPull: o.quietPull, quietBuild: o.quietBuild}
	if len(plan.Provisional) > 0 {
		if err := a.applyAndExplain(ctx, e, p, plan.Images(), ao); err != nil {
			return "", err
		}
		if have, err = e.Observe(ctx, query); err != nil {
			return "", err
		}
		ro.ImagesReady = true
		if plan, err = compose.NewRunPlan(p, have, ro); err != nil {
			return "", err
		}
	}
	a.sizeConsole(plan)
	ao.also = compose.SinkFunc(func(ev compose.Event) { f.Event(ev); made.Event(ev) })
	err = a.apply(ctx, e, plan, ao)
	return made.id, a.explainFailure(ctx, e, p, f, err)
}

// sizeConsole has the one-off container, which the plan creates last, begin with a terminal of the size of the user's.
func (a *app) sizeConsole(plan compose.Plan) {
	console := a.console()
	for i := len(plan.Ops) - 1; i >= 0 && console != nil; i-- {
		if spec := plan.Ops[i].Container; spec != nil {
			if width, height := console.Size(); spec.Config.Tty && width > 0 && height > 0 {
				spec.Host.ConsoleSize = [2]uint{uint(height), uint(width)}
			}
			return
		}
	}
}

// lastContainer notes the container that a plan creates last: the one-off one, of a run.
type lastContainer struct {
	op int
	id string
}

// Event is called by one goroutine at a time for what it looks at.
func (l *lastContainer) Event(e compose.Event) {
	if e.Kind == compose.EventDone && e.Op.Kind == compose.OpCreateContainer && e.Op.ID >= l.op {
		l.op, l.id = e.Op.ID, e.Result.ID
	}
}

// attachOneOff starts the container with the user's terminal, passes signals on, and gives its exit code.
func (a *app) attachOneOff(ctx context.Context, e *engine.Client, id string, o runOptions) error {
	s := engine.Streams{Out: a.out, Err: a.err, Terminal: a.console()}
	if o.Stdin {
		s.In = a.in
	}
	ctx = context.WithoutCancel(ctx)
	defer a.proxySignals(ctx, e, id)()
	err := e.Run(ctx, id, s)
	if errors.Is(err, engine.ErrDetached) {
		a.say("container " + id[:min(12, len(id))] + " goes on")
		return nil
	}
	return err
}

// proxySignals passes the signals that this process gets on to a container, until stop.
func (a *app) proxySignals(ctx context.Context, e *engine.Client, id string) (stop func()) {
	return a.interrupts.forward(func(s os.Signal) {
		if name := signalName(s); name != "" {
			if err := e.Signal(ctx, id, name); err != nil {
				a.warn("pass " + name + " on: " + err.Error())
			}
		}
	})
}
