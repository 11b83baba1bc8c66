// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/watch"
)

// watchOptions are the flags of `watch`.
type watchOptions struct {
	noUp, prune, quiet, infer bool
}

func newWatchCommand(a *app) *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use:     "watch [OPTIONS] [SERVICE...]",
		Short:   "Bring changes of source files into the running services",
		GroupID: groupRun,
		Long: `Starts the services, then follows the files that their develop.watch sections name: a
change is copied into the containers (sync), with a command or a restart after it
(sync+exec, sync+restart), restarts them (restart), or builds the image and replaces
them (rebuild). What .dockerignore, the rules' ignore: and version control leave out
is left alone. An edit of the Compose file is taken over as it is saved.

Files go in through the engine's archive API: the image needs no shell and no tools.
They belong to the user that the container runs as.`,
		Example: `  dev watch                    start all, and follow
  dev watch --no-up web        follow for what runs already
  dev watch --infer            without develop.watch: take rules from the Dockerfile
  dev up --watch               with the containers' output`,
		ValidArgsFunction: a.completeServices,
		RunE:              func(c *cobra.Command, args []string) error { return a.runWatch(c.Context(), o, args) },
	}
	f := c.Flags()
	f.BoolVar(&o.noUp, "no-up", false, "start nothing; services that do not run are left alone")
	f.BoolVar(&o.prune, "prune", true, "remove the image that a rebuild replaces, unless something uses it")
	f.BoolVar(&o.quiet, "quiet", false, "show no output of builds")
	f.BoolVar(&o.infer, "infer", false, "for services without rules, take them from the COPY lines of their Dockerfiles")
	return c
}

// runWatch is `watch`.
func (a *app) runWatch(ctx context.Context, o watchOptions, services []string) error {
	p, err := a.load(ctx, services...)
	if err != nil {
		return err
	}
	w := &watching{a: a, o: o, services: services, p: p}
	if err := w.findRules(); err != nil {
		return err
	}
	if o.infer {
		if err := w.propose(); err != nil {
			return err
		}
	}
	if a.dryRun {
		w.announce()
		return nil
	}
	if w.e, err = a.openEngine(ctx, needs(!o.noUp)); err != nil {
		return err
	}
	defer w.e.Close()
	if !o.noUp {
		if err := w.up(ctx, services, nil); err != nil {
			return err
		}
	}
	return w.run(ctx)
}

// watching follows source files for a project until it is stopped. One goroutine at a time uses it.
type watching struct {
	a        *app
	o        watchOptions
	services []string
	p        *types.Project
	e        *engine.Client
	rules    []compose.WatchRule
	tree     *watch.Tree
	replicas replicas
}

// findRules takes the rules from the project; with --infer those of services without any from their Dockerfiles.
func (w *watching) findRules() error {
	if !w.o.infer {
		rules, warnings, err := compose.WatchRules(w.p, w.services)
		w.rules = rules
		w.a.warnAll(warnings)
		return err
	}
	w.rules = nil
	names := w.services
	if len(names) == 0 {
		names = w.p.ServiceNames()
	}
	for _, name := range names {
		s := w.p.Services[name]
		if s.Develop != nil && len(s.Develop.Watch) > 0 {
			rules, warnings, err := compose.WatchRules(w.p, []string{name})
			if err != nil {
				return err
			}
			w.a.warnAll(warnings)
			w.rules = append(w.rules, rules...)
			continue
		}
		rules, notes, err := watch.Infer(w.p, s)
		if err != nil {
			return err
		}
		for _, note := range notes {
			w.a.say(note)
		}
		w.rules = append(w.rules, rules...)
	}
	if len(w.rules) == 0 {
		return withHint(fmt.Errorf("no rules can be taken from Dockerfiles"), "write a develop.watch section into the Compose file")
	}
	return nil
}

// proposal is a Compose file with nothing but watch rules.
type proposal struct {
	Services map[string]proposedService `yaml:"services" json:"services"`
}

type proposedService struct {
	Develop struct {
		Watch []types.Trigger `yaml:"watch" json:"watch"`
	} `yaml:"develop" json:"develop"`
}

// propose shows the inferred rules as what could be written into the Compose file.
func (w *watching) propose() error {
	p := proposal{Services: map[string]proposedService{}}
	for _, r := range w.rules {
		if !r.Inferred {
			continue
		}
		rel, err := filepath.Rel(w.p.WorkingDir, r.Path)
		if err != nil {
			rel = r.Path
		}
		s := p.Services[r.Service]
		s.Develop.Watch = append(s.Develop.Watch, types.Trigger{
			Path: filepath.ToSlash(rel), Action: r.Action, Target: r.Target, Include: r.Included,
		})
		p.Services[r.Service] = s
	}
	if len(p.Services) == 0 {
		return nil
	}
	content, err := marshalAs("yaml", p)
	if err != nil {
		return err
	}
	w.a.say("Rules from the Dockerfiles, used from now on:")
	_, err = w.a.out.Write(content)
	return err
}

// announce says what is watched for whom.
func (w *watching) announce() {
	var names []string
	paths := map[string][]string{}
	for _, r := range w.rules {
		if !slices.Contains(names, r.Service) {
			names = append(names, r.Service)
		}
		if path := w.short(r.Path); !slices.Contains(paths[r.Service], path) {
			paths[r.Service] = append(paths[r.Service], path)
		}
	}
	for _, name := range names {
		w.a.say(fmt.Sprintf("Watching for %s: %s", name, listOf(paths[name])))
	}
}

// short is a path as the user sees it from the project's folder.
func (w *watching) short(path string) string {
	rel, err := filepath.Rel(w.p.WorkingDir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.ToSlash(rel)
}

// up makes and starts services in the background; change may alter its options.
func (w *watching) up(ctx context.Context, services []string, change func(*upOptions)) error {
	o := upOptions{detach: true, createOptions: createOptions{pull: "policy", quietBuild: w.o.quiet}}
	if change != nil {
		change(&o)
	}
	u := &upRun{a: w.a, o: o, services: services, p: w.p, e: w.e}
	if err := u.settle(); err != nil {
		return err
	}
	u.takeProxies()
	if err := u.complete(ctx); err != nil {
		return err
	}
	plan, err := u.makePlan(ctx)
	if err != nil || plan.Empty() {
		return err
	}
	return u.detached(ctx, plan)
}
