// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/compose"
)

// createOptions are the flags that say how containers come about: those that `up`, `create` and `plan` share.
type createOptions struct {
	build, noBuild, forceRecreate, noRecreate bool
	recreateDeps, renewVolumes, removeOrphans bool
	noDeps, quietPull, quietBuild, yes        bool
	pull                                      string
	scale                                     []string
	timeout                                   seconds
}

func (o *createOptions) register(f *pflag.FlagSet) {
	f.BoolVar(&o.build, "build", false, "build images first, even if they are there")
	f.BoolVar(&o.noBuild, "no-build", false, "build nothing, even if an image is missing")
	f.StringVar(&o.pull, "pull", "policy", "when to pull images: always, missing, never; policy: as the Compose file says")
	f.BoolVar(&o.quietPull, "quiet-pull", false, "show no progress of pulls")
	f.BoolVar(&o.quietBuild, "quiet-build", false, "show no output of builds")
	f.BoolVar(&o.forceRecreate, "force-recreate", false, "recreate containers even if nothing has changed")
	f.BoolVar(&o.noRecreate, "no-recreate", false, "keep containers even if something has changed")
	f.BoolVar(&o.removeOrphans, "remove-orphans", false, "remove containers of services that the Compose file no longer has")
	f.StringArrayVar(&o.scale, "scale", nil, "run NUM containers of a service: `SERVICE=NUM`; may be repeated")
	f.BoolVarP(&o.yes, "yes", "y", false, "answer every question with yes")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "y" { // docker compose had --y for a while
			name = "yes"
		}
		return pflag.NormalizedName(name)
	})
}

// registerMore adds the flags that `up` and `plan` have and `create` has not.
func (o *createOptions) registerMore(f *pflag.FlagSet) {
	f.BoolVar(&o.noDeps, "no-deps", false, "leave the services that these depend on alone")
	f.BoolVar(&o.recreateDeps, "always-recreate-deps", false, "recreate the services that these depend on, too")
	f.BoolVarP(&o.renewVolumes, "renew-anon-volumes", "V", false, "make new anonymous volumes instead of keeping those of the containers before")
	f.VarP(&o.timeout, "timeout", "t", "seconds that containers get to stop, instead of their own grace period")
}

// check refuses flags that exclude each other.
func (o *createOptions) check() error {
	for _, c := range []struct {
		a, b bool
		text string
	}{
		{o.build, o.noBuild, "--build and --no-build"},
		{o.renewVolumes, o.noRecreate, "--no-recreate and --renew-anon-volumes"},
		{o.forceRecreate, o.noRecreate, "--force-recreate and --no-recreate"},
		{o.recreateDeps, o.noRecreate, "--always-recreate-deps and --no-recreate"},
	} {
		if c.a && c.b {
			return usagef("%s exclude each other", c.text)
		}
	}
	switch o.pull {
	case "", "policy", types.PullPolicyAlways, types.PullPolicyNever, types.PullPolicyMissing, types.PullPolicyIfNotPresent, types.PullPolicyBuild:
	default:
		return usagef("unknown --pull value %q: use always, missing or never", o.pull)
	}
	return nil
}

// plan turns the flags into options of a plan for the project.
func (o *createOptions) plan(a *app, p *types.Project, services []string) (compose.PlanOptions, error) {
	orphans, err := a.orphanSettings(p, o.removeOrphans)
	if err != nil {
		return compose.PlanOptions{}, err
	}
	po := compose.PlanOptions{
		Services: services, NoDeps: o.noDeps,
		ForceRecreate: o.forceRecreate, NoRecreate: o.noRecreate, AlwaysRecreateDeps: o.recreateDeps,
		RenewAnonVolumes: o.renewVolumes,
		RemoveOrphans:    orphans.remove, IgnoreOrphans: orphans.ignore,
		Build: o.build, NoBuild: o.noBuild,
		Timeout: o.timeout.value,
	}
	if o.pull != "policy" {
		po.Pull = o.pull
	}
	po.Scale, err = parseScale(o.scale, p)
	return po, err
}

// parseScale reads SERVICE=NUM.
func parseScale(args []string, p *types.Project) (map[string]int, error) {
	scale := map[string]int{}
	for _, arg := range args {
		name, num, _ := strings.Cut(arg, "=")
		n, err := strconv.Atoi(num)
		if name == "" || err != nil || n < 0 {
			return nil, usagef("read --scale %q: write SERVICE=NUM, like web=3", arg)
		}
		if _, ok := p.Services[name]; !ok {
			return nil, noSuchService(name, slices.Collect(maps.Keys(p.Services)))
		}
		scale[name] = n
	}
	return scale, nil
}

// orphanSettings are what flags and variables say about containers of services that the project no longer has.
type orphanSettings struct{ remove, ignore bool }

func (a *app) orphanSettings(p *types.Project, flag bool) (orphanSettings, error) {
	o := orphanSettings{remove: flag || isTrue(a.setting(p, "COMPOSE_REMOVE_ORPHANS")), ignore: isTrue(a.setting(p, "COMPOSE_IGNORE_ORPHANS"))}
	if o.remove && o.ignore {
		return o, usagef("COMPOSE_IGNORE_ORPHANS and --remove-orphans exclude each other")
	}
	return o, nil
}

// setting looks a variable up in the process environment, then in the project's .env.
func (a *app) setting(p *types.Project, name string) string {
	if v, ok := a.lookupEnv(name); ok || p == nil {
		return v
	}
	return p.Environment[name]
}

// upOptions are all flags of `up`.
type upOptions struct {
	createOptions
	detach, noStart, wait                    bool
	abortOnExit, abortOnFailure              bool
	noColor, noPrefix, timestamps            bool
	attachDependencies, watch, menu, menuSet bool
	attach, noAttach                         []string
	exitCodeFrom                             string
	waitTimeout                              int
	rollback                                 bool
	// again: the warnings of the project have been shown.
	again bool
}

func (o *upOptions) register(f *pflag.FlagSet) {
	o.createOptions.register(f)
	o.createOptions.registerMore(f)
	f.BoolVarP(&o.detach, "detach", "d", false, "leave the containers running in the background")
	f.BoolVar(&o.noStart, "no-start", false, "create containers without starting them")
	f.BoolVar(&o.wait, "wait", false, "wait until services run and are healthy; implies --detach")
	f.IntVar(&o.waitTimeout, "wait-timeout", 0, "most `SECONDS` to wait with --wait")
	f.BoolVar(&o.abortOnExit, "abort-on-container-exit", false, "stop all containers when one stops")
	f.BoolVar(&o.abortOnFailure, "abort-on-container-failure", false, "stop all containers when one fails")
	f.StringVar(&o.exitCodeFrom, "exit-code-from", "", "exit with the code of a `SERVICE`; implies --abort-on-container-exit")
	f.StringArrayVar(&o.attach, "attach", nil, "show the output of this `SERVICE` only; may be repeated")
	f.StringArrayVar(&o.noAttach, "no-attach", nil, "do not show the output of this `SERVICE`; may be repeated")
	f.BoolVar(&o.attachDependencies, "attach-dependencies", false, "show the output of the services that these depend on, too")
	f.BoolVar(&o.noColor, "no-color", false, "show output without colors")
	f.BoolVar(&o.noPrefix, "no-log-prefix", false, "show output without the containers' names")
	f.BoolVar(&o.timestamps, "timestamps", false, "show when each line of output came")
	f.BoolVar(&o.rollback, "rollback", false, "if it fails, undo what was done; volumes stay")
	f.BoolVarP(&o.watch, "watch", "w", false, "follow source files and bring changes into the containers, as dev watch does")
	f.BoolVar(&o.menu, "menu", false, "offer keys on a terminal while attached: watch, view, detach")
}

// check refuses flags that exclude each other and settles what flags imply.
func (o *upOptions) check() error {
	switch {
	case o.watch && (o.detach || o.wait || o.noStart):
		return usagef("--watch cannot be combined with --detach, --wait or --no-start; dev watch follows without the containers' output")
	case o.watch && (o.abortOnExit || o.abortOnFailure || o.exitCodeFrom != ""):
		return usagef("--watch cannot be combined with --abort-on-container-exit, --abort-on-container-failure or --exit-code-from")
	case o.menu && o.menuSet && (o.detach || o.wait || o.noStart):
		return usagef("--menu cannot be combined with --detach, --wait or --no-start")
	case o.waitTimeout < 0:
		return usagef("--wait-timeout must not be negative")
	}
	if o.exitCodeFrom != "" && !o.abortOnFailure {
		o.abortOnExit = true
	}
	attached := o.attachDependencies || o.abortOnExit || o.abortOnFailure || len(o.attach) > 0
	switch {
	case o.abortOnExit && o.abortOnFailure:
		return usagef("--abort-on-container-exit and --abort-on-container-failure exclude each other")
	case (o.wait || o.detach) && attached:
		flag := "--detach"
		if o.wait {
			flag = "--wait"
		}
		return usagef("%s cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --exit-code-from, --attach or --attach-dependencies", flag)
	case len(o.attach) > 0 && o.attachDependencies:
		return usagef("--attach and --attach-dependencies exclude each other")
	}
	if o.wait {
		o.detach = true
	}
	return o.createOptions.check()
}

// seconds is a flag with a number of seconds that is nil until it is given; 0 is a value of its own.
type seconds struct{ value *time.Duration }

// String is the flag's value.
func (s *seconds) String() string {
	if s.value == nil {
		return ""
	}
	return strconv.Itoa(int(s.value.Seconds()))
}

// Set reads the flag.
func (s *seconds) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return usagef("%q is not a whole number of seconds", text)
	}
	d := time.Duration(n) * time.Second
	s.value = &d
	return nil
}

// Type names the value in the help.
func (s *seconds) Type() string { return "seconds" }
