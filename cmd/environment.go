// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/environments"
)

// environmentVariable names the environment to use, and tells Compose files which one they are read in.
const environmentVariable = "DEV_ENV"

// place is the environment that a command works in, and how it came to be chosen.
type place struct {
	name string
	why  string // "--env", "DEV_ENV", "dev env use", "git worktree"; empty for main by default
	dir  string // the folder that the environment belongs to
	wt   environments.Worktree
}

// explicit reports whether the command line or its variables name the environment.
func (p place) explicit() bool { return p.why == "--env" || p.why == environmentVariable }

// environmentStore is the record of environments.
func (a *app) environmentStore() (environments.Store, error) {
	dir, err := a.userDir()
	return environments.Store{Path: filepath.Join(dir, environments.FileName)}, err
}

// choosePlace decides on the environment: --env, DEV_ENV, what `dev env use` chose for the folder, the git worktree's own, main. Names that the user
// gives the project (-p, COMPOSE_PROJECT_NAME) are taken as they are unless they give an environment, too.
func (a *app) choosePlace(start string) (place, error) {
	wt, _, err := environments.FindWorktree(start)
	p := place{name: environments.Main, dir: start, wt: wt}
	if wt.Root != "" {
		p.dir = wt.Root
	}
	switch {
	case a.envName != "":
		p.name, p.why = a.envName, "--env"
	case a.getenv(environmentVariable) != "":
		p.name, p.why = a.getenv(environmentVariable), environmentVariable
	case err != nil:
		return p, withHint(err, "say which environment with --env NAME, or --env main")
	case a.projectName != "" || a.getenv("COMPOSE_PROJECT_NAME") != "":
		return p, nil
	default:
		return a.placeByFolder(p, start)
	}
	return p, withHint(environments.CheckName(p.name), "%s", "try --env "+environments.Normalize(p.name))
}

// placeByFolder finds what the folder says about the environment.
func (a *app) placeByFolder(p place, start string) (place, error) {
	store, err := a.environmentStore()
	if err != nil {
		return p, err
	}
	state, err := store.Read()
	if err != nil {
		return p, err
	}
	used := state.InUse(start)
	switch name := environments.Normalize(p.wt.Name); {
	case used != "":
		p.name, p.why = used, "dev env use"
	case p.wt.Linked() && name != "" && name != environments.Main:
		p.name, p.why = name, "git worktree"
	}
	return p, nil
}

// startFolder is the folder from which the Compose files are found.
func startFolder(o compose.LoadOptions) string {
	if o.ProjectDir != "" {
		return o.ProjectDir
	}
	if len(o.Files) > 0 && o.Files[0] != "-" {
		file := o.Files[0]
		if !filepath.IsAbs(file) {
			file = filepath.Join(o.WorkingDir, file)
		}
		return filepath.Dir(file)
	}
	return o.WorkingDir
}

// enterPlace makes o load the project as it is in the environment that the command works in.
func (a *app) enterPlace(ctx context.Context, o *compose.LoadOptions) error {
	p, err := a.choosePlace(startFolder(*o))
	if err != nil {
		return err
	}
	if p.name == environments.Main {
		return nil
	}
	o.Environment[environmentVariable] = p.name
	base, err := a.baseName(ctx, p, o)
	if err != nil {
		return err
	}
	o.ProjectName = environments.ProjectName(base, p.name)
	o.Transform = func(project *types.Project) (*types.Project, error) {
		return a.fit(ctx, base, p, project)
	}
	return nil
}

// baseName is the name that the project has in its main environment: in a linked worktree, as in the first one. Standard input is read ahead, as it
// is read again later.
func (a *app) baseName(ctx context.Context, p place, o *compose.LoadOptions) (string, error) {
	if p.wt.Linked() {
		o.FolderName = func(dir string) string {
			if dir == p.wt.Root {
				dir = p.wt.Main
			}
			return filepath.Base(dir)
		}
	}
	if !slices.Contains(o.Files, "-") {
		base := *o
		base.Warn = nil
		return compose.Name(ctx, base)
	}
	text, err := io.ReadAll(o.Stdin)
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	base := *o
	base.Stdin, base.Warn = bytes.NewReader(text), nil
	o.Stdin = bytes.NewReader(text)
	return compose.Name(ctx, base)
}

// fit gives the environment what the project needs, and returns the project as it is there.
func (a *app) fit(ctx context.Context, base string, p place, project *types.Project) (*types.Project, error) {
	r, err := a.provide(ctx, base, p, compose.NeedsOf(project))
	if err != nil {
		return nil, err
	}
	out, notes := r.Environment().Apply(project)
	a.fitted = &fitted{record: r, place: p, notes: notes}
	return out, nil
}

// fitted is what came of fitting a project into an environment.
type fitted struct {
	record environments.Record
	place  place
	notes  []string
}

// provide returns the environment with all that is needed, and records it where something had to be found.
func (a *app) provide(ctx context.Context, base string, p place, needs compose.Needs) (environments.Record, error) {
	store, err := a.environmentStore()
	if err != nil {
		return environments.Record{}, err
	}
	state, err := store.Read()
	if err != nil {
		return environments.Record{}, err
	}
	if r := state.Find(base, p.name); r != nil && r.Has(needs) && (a.envPorts == "" || a.envPorts == r.Range) {
		return *r, nil
	}
	var given environments.Record
	give := func(s *environments.State) error {
		r, err := s.Add(base, p.name, p.dir, time.Now())
		if err != nil {
			return withHint(err, "choose another name with --env NAME")
		}
		r.Range = cmp.Or(a.envPorts, r.Range)
		host := environments.ThisHost()
		if host.Ports, err = a.environmentPorts(r.Range); err != nil {
			return err
		}
		err = s.Allocate(r, needs, host)
		given = *r
		return err
	}
	if a.lookOnly {
		err := give(&state)
		return given, err
	}
	err = store.Update(ctx, give)
	return given, err
}

// environmentPortsVariable names the range of ports for environments made in this session.
const environmentPortsVariable = "DEV_ENV_PORTS"

// environmentPorts is the range that an environment gets its ports from: its own, else the variable's, else that of the settings, else dev's own.
func (a *app) environmentPorts(own string) (environments.PortRange, error) {
	dir, err := a.userDir()
	if err != nil {
		return environments.PortRange{}, err
	}
	file := filepath.Join(dir, config.FileName)
	c, err := config.Load(file)
	if err != nil {
		return environments.PortRange{}, err
	}
	for _, set := range []struct{ by, text string }{
		{"--ports", own}, {environmentPortsVariable, a.getenv(environmentPortsVariable)}, {file + ": environments.ports", c.Environments.Ports},
	} {
		if set.text == "" {
			continue
		}
		r, err := environments.ParsePortRange(set.text)
		if err != nil {
			return r, fmt.Errorf("%s: %w", set.by, err)
		}
		return r, nil
	}
	return environments.DefaultPorts(), nil
}

// tellPlace says which images the lock file lacks and, once, which environment a project is made in and what that changes; --dry-run remembers nothing.
func (a *app) tellPlace(ctx context.Context) error {
	a.tellDrift()
	f := a.fitted
	if f == nil || slices.Equal(f.record.Notes, f.notes) && f.record.Dir == f.place.dir {
		return nil
	}
	if len(f.record.Notes) == 0 || !slices.Equal(f.record.Notes, f.notes) {
		a.say(fmt.Sprintf("environment %s (%s): project %s; dev env ls shows all, --env main is the one without changes", f.place.name, f.place.why, f.record.Project))
		for _, note := range f.notes {
			if !slices.Contains(f.record.Notes, note) {
				a.say("  " + note)
			}
		}
	}
	if a.dryRun {
		return nil
	}
	store, err := a.environmentStore()
	if err != nil {
		return err
	}
	return store.Update(ctx, func(s *environments.State) error {
		if r := s.Find(f.record.Base, f.record.Name); r != nil {
			r.Notes, r.Dir = f.notes, f.place.dir
		}
		return nil
	})
}

// named is the project name that a name given by -p or COMPOSE_PROJECT_NAME comes to: --env makes it the base of an environment.
func (a *app) named(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	p, err := a.choosePlace(a.cwd)
	if err != nil || !p.explicit() {
		return name, err
	}
	return environments.ProjectName(name, p.name), nil
}
