// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/projectcache"
)

// loadOptions are what the global flags say about reading Compose files.
func (a *app) loadOptions() (compose.LoadOptions, error) {
	o := compose.LoadOptions{
		WorkingDir:    a.cwd,
		ProjectDir:    a.projectDir,
		Files:         a.files,
		Stdin:         a.in,
		ProjectName:   a.projectName,
		Profiles:      a.profiles,
		EnvFiles:      a.envFiles,
		Environment:   a.environment(),
		Compatibility: a.compatibility,
		AllResources:  a.allResources,
		Warn:          func(w compose.Warning) { a.warn(w.String()) },
	}
	o.Cache = a.projectCache()
	var err error
	if o.Remotes, err = a.remoteLoaders(); err != nil {
		return o, err
	}
	if o.ProjectDir != "" {
		if o.ProjectDir, err = a.path(o.ProjectDir); err != nil {
			return o, err
		}
	}
	return o, nil
}

// projectCache keeps what Compose files came to, in the user's folder; nil for one who borrows root's rights, as root's files would be in the user's way.
func (a *app) projectCache() compose.Cache {
	dir, err := config.Dir(a.getenv)
	if err != nil || a.invoker() != nil {
		return nil
	}
	return projectcache.Cache{Dir: filepath.Join(dir, filepath.FromSlash(projectcache.DirName)), Version: Version}
}

// load reads the project. services are enabled with all they need, even when they are in an inactive profile, and others are left out; none
// means all of the active profiles. Images are pinned to what the lock file has, if there is one.
func (a *app) load(ctx context.Context, services ...string) (*types.Project, error) {
	o, err := a.loadOptions()
	if err != nil {
		return nil, err
	}
	p, err := a.loadWith(ctx, o, services)
	if err != nil {
		return nil, err
	}
	return a.enforceLock(p)
}

// loadWith is load with options of the caller's.
func (a *app) loadWith(ctx context.Context, o compose.LoadOptions, services []string) (*types.Project, error) {
	o.Services = services
	if err := a.enterPlace(ctx, &o); err != nil {
		return nil, err
	}
	p, err := compose.Load(ctx, o)
	if err != nil && len(services) > 0 {
		// Standard input cannot be read twice.
		if !slices.Contains(o.Files, "-") {
			err = a.explainLoad(ctx, o, services, err)
		}
		return nil, err
	}
	return p, err
}

// explainLoad finds out whether a load failed because of a service that the project does not have, and then says so with a suggestion.
func (a *app) explainLoad(ctx context.Context, o compose.LoadOptions, services []string, err error) error {
	o.Services, o.Warn = nil, nil
	p, loadErr := compose.Load(ctx, o)
	if loadErr != nil {
		return err
	}
	if unknown := checkServices(p, services); unknown != nil {
		return unknown
	}
	return err
}

// checkServices refuses names that are no service of the project, in any profile.
func checkServices(p *types.Project, services []string) error {
	names := serviceNames(p)
	for _, s := range services {
		if !slices.Contains(names, s) {
			return noSuchService(s, names)
		}
	}
	return nil
}

// serviceNames are all services of the project, those of inactive profiles last.
func serviceNames(p *types.Project) []string {
	return append(slices.Sorted(maps.Keys(p.Services)), slices.Sorted(maps.Keys(p.DisabledServices))...)
}

// loadOrName reads the project, or goes without it where its name is enough: given by -p and no -f, or by COMPOSE_PROJECT_NAME where no Compose
// file is found. services must exist in the project if there is one.
func (a *app) loadOrName(ctx context.Context, services ...string) (*types.Project, string, error) {
	if a.projectName != "" && len(a.files) == 0 {
		name, err := a.named(a.projectName)
		return nil, name, err
	}
	p, err := a.load(ctx, services...)
	if err != nil {
		if name := a.getenv("COMPOSE_PROJECT_NAME"); name != "" && errors.Is(err, fs.ErrNotExist) {
			name, err = a.named(name)
			return nil, name, err
		}
		return nil, "", err
	}
	return p, p.Name, nil
}

// projectNameOnly finds the name with as little reading as possible.
func (a *app) projectNameOnly(ctx context.Context) (string, error) {
	name := a.projectName
	if name == "" {
		name = a.getenv("COMPOSE_PROJECT_NAME")
	}
	if name != "" {
		return a.named(name)
	}
	o, err := a.loadOptions()
	if err != nil {
		return "", err
	}
	if err := a.enterPlace(ctx, &o); err != nil {
		return "", err
	}
	return compose.Name(ctx, o)
}

// checkName refuses a name that no project can have, so that it is not taken for one without containers.
func checkName(name string) error {
	if good := loader.NormalizeProjectName(name); good != name {
		err := fmt.Errorf("invalid project name %q: it may have lower-case letters, digits, - and _, and starts with a letter or digit", name)
		if good != "" {
			return withHint(err, "try -p %s", good)
		}
		return err
	}
	return nil
}
