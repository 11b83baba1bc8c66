// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

type buildOptions struct {
	compose.BuildPlanOptions
	quiet, check, print  bool
	args                 []string
	ssh, memory, builder string
	older                bool // flags that have no effect any more
	progress             string
}

func newBuildCommand(a *app) *cobra.Command {
	var o buildOptions
	c := &cobra.Command{
		Use:     "build [OPTIONS] [SERVICE...]",
		Short:   "Build the images of services",
		GroupID: groupImages,
		Long: `Builds the images of services that have a build section, side by side where none
needs another. Images of services without one are left alone.`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("ssh") && o.ssh == "" {
				o.ssh = "default"
			}
			if o.progress != "" {
				a.progressName = o.progress
				if err := a.check(); err != nil {
					return err
				}
			}
			if err := o.settle(); err != nil {
				return err
			}
			o.Services = args
			switch {
			case o.check:
				return a.checkBuilds(c.Context(), o, args)
			case o.print:
				return a.printBake(c.Context(), o, args)
			}
			return a.runImagesPlan(c.Context(), imagesPlan{
				heading: "build", services: args, quiet: o.quiet, all: true,
				plan: func(p *types.Project, have compose.Snapshot, proxies map[string]string) (compose.Plan, error) {
					o.Build.Proxy = proxies
					return compose.NewBuildPlan(p, have, o.BuildPlanOptions)
				},
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Build.NoCache, "no-cache", false, "build every step anew")
	f.BoolVar(&o.Build.Pull, "pull", false, "look for newer base images")
	f.BoolVar(&o.Build.Push, "push", false, "push the images when they are built")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no output of builds")
	f.StringArrayVar(&o.args, "build-arg", nil, "set a build argument: `NAME=VALUE`, or NAME to pass on your own; may be repeated")
	f.StringVar(&o.ssh, "ssh", "", "let builds use SSH keys: default for your agent, or `ID=PATH`")
	f.BoolVar(&o.WithDependencies, "with-dependencies", false, "build what the services depend on, too")
	f.StringVar(&o.Build.Provenance, "provenance", "", "add a provenance attestation")
	f.StringVar(&o.Build.SBOM, "sbom", "", "add a list of the image's contents (SBOM)")
	f.StringVarP(&o.memory, "memory", "m", "", "has no effect with BuildKit")
	f.StringVar(&o.builder, "builder", "", "builder to use: default, as the engine builds, is the only one")
	f.BoolVar(&o.check, "check", false, "look the Dockerfiles over, and build nothing")
	f.BoolVar(&o.print, "print", false, "show the builds as a file for docker buildx bake, and build nothing")
	f.StringVar(&o.progress, "progress", "", "how to show progress; better before the command")
	for _, name := range []string{"parallel", "compress", "force-rm", "no-rm"} {
		f.BoolVar(&o.older, name, false, "has no effect")
		_ = f.MarkHidden(name)
	}
	_ = f.MarkHidden("progress")
	return c
}

// settle turns the flags into build options.
func (o *buildOptions) settle() error {
	switch {
	case o.builder != "" && o.builder != "default":
		return withHint(fmt.Errorf("the builder %q cannot be used: the engine builds, without buildx", o.builder), "leave --builder out")
	}
	if o.ssh != "" {
		if !strings.Contains(o.ssh, "=") && o.ssh != "default" {
			return usagef("read --ssh %q: write default, or ID=PATH", o.ssh)
		}
		o.Build.SSH = []string{o.ssh}
	}
	if len(o.args) > 0 {
		o.Build.Args = types.NewMappingWithEquals(o.args)
	}
	return nil
}

// printBake shows the builds as a bake file.
func (a *app) printBake(ctx context.Context, o buildOptions, services []string) error {
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	if err := checkServices(p, services); err != nil {
		return err
	}
	if p, err = p.WithServicesEnabled(services...); err != nil {
		return err
	}
	bake, err := compose.NewBakeFile(p, services, o.BuildPlanOptions)
	if err != nil {
		return err
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(bake)
}

// checkBuilds looks over the Dockerfiles of services and shows what was found; anything is exit code 1.
func (a *app) checkBuilds(ctx context.Context, o buildOptions, services []string) error {
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	if err := checkServices(p, services); err != nil {
		return err
	}
	if p, err = p.WithServicesEnabled(services...); err != nil {
		return err
	}
	e, err := a.openEngine(ctx, startsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	o.Build.Proxy = a.proxies(e)
	flawed := false
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Build == nil || len(services) > 0 && !slices.Contains(services, name) {
			continue
		}
		spec, err := compose.NewBuildSpec(p, s, o.Build)
		if err != nil {
			return err
		}
		found, err := e.CheckBuild(ctx, spec)
		if err != nil {
			return err
		}
		flawed = flawed || found.Flawed
		report := strings.TrimSpace(found.Report)
		if report == "" {
			report = "nothing found"
		}
		if err := a.tell("%s: %s", name, report); err != nil {
			return err
		}
	}
	if flawed {
		return exitWith(exitError)
	}
	return nil
}
