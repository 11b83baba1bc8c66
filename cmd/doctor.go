// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/doctor"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/environments"
	"github.com/seed71221737/dev/internal/finding"
)

type doctorOptions struct{ fix, yes, json bool }

func newDoctorCommand(a *app) *cobra.Command {
	var o doctorOptions
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Find what keeps applications from running here, and mend it",
		GroupID: groupLook,
		Long: `Looks at the engine, disks, ports, name resolution, the clock, credentials, settings,
proxies, limits for watching files, and what interrupted commands left behind. Each
finding has a cause and a fix; --fix shows what it would do, asks, and does it.

The exit status is 1 if something is broken, and 0 if at most there are warnings.`,
		Args: takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.fix && o.json {
				return usagef("--fix and --json exclude each other")
			}
			return a.runDoctor(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.fix, "fix", false, "mend what can be mended, after showing what that does")
	f.BoolVarP(&o.yes, "yes", "y", false, "with --fix: do not ask")
	f.BoolVar(&o.json, "json", false, "show the findings as JSON")
	return c
}

func (a *app) runDoctor(ctx context.Context, o doctorOptions) error {
	checks, closeEngine, err := a.checks(ctx)
	if err != nil {
		return err
	}
	defer closeEngine()
	reports := finding.Run(ctx, checks)
	if err := a.showReports(reports, o.json); err != nil {
		return err
	}
	if o.fix {
		if err := a.repair(ctx, reports, o.yes); err != nil || a.dryRun {
			return err
		}
		reports = finding.Run(ctx, checks)
	}
	return worst(reports)
}

// worst is the exit status of what was found.
func worst(reports []finding.Report) error {
	for _, r := range reports {
		for _, f := range r.Findings {
			if f.Severity == finding.Broken {
				return exitStatus(exitError)
			}
		}
	}
	return nil
}

// checks are those of this host, its engine and, where there is one, the project here. closeEngine ends what they use.
func (a *app) checks(ctx context.Context) (checks []doctor.Check, closeEngine func(), err error) {
	h, err := a.thisHost()
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	end := func() {}
	open := sync.OnceValues(func() (doctor.Engine, error) {
		e, err := a.openEngine(ctx, wantsEngine)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		end = func() { _ = e.Close() }
		return e, nil
	})
	get := func(context.Context) (doctor.Engine, error) { return open() }
	checks = h.EngineChecks(get)
	a.lookOnly = true
	if l, err := a.loadOptions(); err == nil {
		l.Warn = nil
		if p, err := a.loadWith(ctx, l, nil); err == nil {
			var have []compose.Container
			if snap, err := a.observeContainers(ctx, p.Name); err == nil {
				have = snap.Containers
			}
			checks = append(checks, h.PortCheck(compose.NeedsOf(p), publishedPorts(p), have))
		}
	}
	checks = append(checks, h.HostChecks([]string{h.Dir, a.cwd, "/var/lib/docker", "/var/lib/dev"})...)
	return checks, func() { mu.Lock(); defer mu.Unlock(); end() }, nil
}

// thisHost is the one that the process runs on.
func (a *app) thisHost() (doctor.Host, error) {
	dir, err := a.userDir()
	if err != nil {
		return doctor.Host{}, err
	}
	docker, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return doctor.Host{}, err
	}
	return doctor.Host{
		Getenv: a.getenv, Dir: dir, DockerDir: docker, LookPath: exec.LookPath, LookupHost: net.DefaultResolver.LookupHost,
		FreeSpace: doctor.FreeSpace, PortFree: environments.ThisHost().Free, ReadFile: os.ReadFile, Now: time.Now,
		Connect: func(path string) error {
			c, err := net.DialTimeout("unix", path, time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		},
	}, nil
}

// showReports shows what was found, and which checks found nothing.
func (a *app) showReports(reports []doctor.Report, asJSON bool) error {
	if asJSON {
		all := []doctor.Finding{}
		for _, r := range reports {
			all = append(all, r.Findings...)
		}
		return writeJSON(a.out, all)
	}
	paint := a.painter(a.out, false)
	for _, r := range reports {
		if len(r.Findings) == 0 {
			if _, err := fmt.Fprintf(a.out, "%s  %s: %s\n", paint(green, "ok      "), r.Check.Name, r.Check.About); err != nil {
				return err
			}
		}
		for _, f := range r.Findings {
			style := yellow
			if f.Severity == doctor.Broken {
				style = red
			}
			_, err := fmt.Fprintf(a.out, "%s  %s: %s\n          cause: %s\n          fix:   %s\n", paint(style, pad(string(f.Severity), 8)), f.Check, f.What, f.Cause, f.Fix)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// repair says what would be done about the findings that can be mended, asks, and does it.
func (a *app) repair(ctx context.Context, reports []doctor.Report, yes bool) error {
	var todo []doctor.Finding
	for _, r := range reports {
		for _, f := range r.Findings {
			if f.Repair != nil {
				todo = append(todo, f)
				a.say("would " + f.RepairText)
			}
		}
	}
	if len(todo) == 0 {
		a.say("nothing here can be mended by itself")
		return nil
	}
	if a.dryRun {
		return nil
	}
	if !yes {
		ok, err := a.confirm(ctx, fmt.Sprintf("Do these %d things?", len(todo)))
		if err != nil || !ok {
			return err
		}
	}
	var errs []error
	for _, f := range todo {
		if err := f.Repair(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.RepairText, err))
			continue
		}
		a.say("done: " + f.RepairText)
	}
	return errors.Join(errs...)
}
