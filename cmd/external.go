// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/provider"
)

// externals completes a project by what is not in its files and not the engine's: what providers and models tell, and the engine's own socket.
type externals struct {
	services []string // those to bring up, with what they depend on unless noDeps
	noDeps   bool
	// look: nothing is started; what only a program could tell stays unknown.
	look bool
	// bringUp brings up, as far as the command does that at all, what the provider of a service depends on before that is asked. The project is without
	// providers; what those asked before have given is in it.
	bringUp func(ctx context.Context, p *types.Project, s types.ServiceConfig) error
}

// complete carries the externals out. Providers that have been asked in this process are not asked again.
func (a *app) complete(ctx context.Context, p *types.Project, e *engine.Client, x externals) (*types.Project, error) {
	var err error
	if compose.UsesAPISocket(p) {
		if p, err = a.giveSocket(p, e); err != nil {
			return nil, err
		}
	}
	if p, err = a.giveModels(ctx, p, e, x); err != nil {
		return nil, err
	}
	wanted, err := compose.Providers(p, x.services, x.noDeps)
	if err != nil {
		return nil, err
	}
	if a.given == nil {
		a.given = map[string]compose.Variables{}
	}
	for _, s := range wanted {
		if _, asked := a.given[s.Name]; asked {
			continue
		}
		if x.look {
			a.warn(fmt.Sprintf("service %q is its provider's: what %s would do, and the variables it gives, are not known here", s.Name, s.Provider.Type))
			continue
		}
		if x.bringUp != nil && !x.noDeps {
			if err := x.bringUp(ctx, compose.WithoutProviders(p, a.given), s); err != nil {
				return nil, err
			}
		}
		a.say(fmt.Sprintf("Service %s: %s makes it", s.Name, s.Provider.Type))
		if a.given[s.Name], err = a.programs(e).Run(ctx, p, s, provider.Up); err != nil {
			delete(a.given, s.Name)
			return nil, err
		}
	}
	return compose.WithoutProviders(p, a.given), nil
}

// giveModels makes the models of the project's services available.
func (a *app) giveModels(ctx context.Context, p *types.Project, e *engine.Client, x externals) (*types.Project, error) {
	used := false
	for _, s := range p.Services {
		used = used || len(s.Models) > 0
	}
	switch {
	case !used:
		return p, nil
	case x.look:
		return compose.WithModels(p, ""), nil
	}
	if a.modelEndpoint == "" {
		at, err := a.programs(e).Models(ctx, p)
		if err != nil {
			return nil, err
		}
		a.modelEndpoint = at
	}
	return compose.WithModels(p, a.modelEndpoint), nil
}

// giveSocket writes out use_api_socket. Inside a machine the engine's socket is where it is everywhere; the one here is only a way to it.
func (a *app) giveSocket(p *types.Project, e *engine.Client) (*types.Project, error) {
	socket := "/var/run/docker.sock"
	if path, ok := strings.CutPrefix(e.Host(), "unix://"); ok && a.machine == nil {
		socket = path
	}
	dir, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return nil, err
	}
	file, err := config.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("read the credentials for use_api_socket: %w", err)
	}
	all, err := file.GetAllCredentials()
	if err != nil {
		return nil, fmt.Errorf("read the credentials for use_api_socket: %w", err)
	}
	var content bytes.Buffer
	if err := (&configfile.ConfigFile{AuthConfigs: all}).SaveToWriter(&content); err != nil {
		return nil, err
	}
	return compose.WithAPISocket(p, socket, content.String()), nil
}

// programs runs external programs with the user's environment, and tells them of the engine.
func (a *app) programs(e *engine.Client) *provider.Host {
	h := &provider.Host{Environ: append(a.env[:len(a.env):len(a.env)], "DOCKER_HOST="+e.Host()), Say: a.say}
	if dir, err := endpoint.DockerDir(a.getenv); err == nil {
		h.PluginDirs = append(h.PluginDirs, filepath.Join(dir, "cli-plugins"))
	}
	h.PluginDirs = append(h.PluginDirs, pluginDirs...)
	return h
}

// pluginDirs are where packages put plugins of the docker CLI.
var pluginDirs = []string{
	"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
}

// endProvider has the provider of a service stop or remove what it made.
func (a *app) endProvider(ctx context.Context, e *engine.Client, p *types.Project, op compose.Op) error {
	s := p.Services[op.Service]
	a.say(fmt.Sprintf("Service %s: %s %s", s.Name, s.Provider.Type, op.Name))
	_, err := a.programs(e).Run(ctx, p, s, op.Name)
	return err
}

// providingEngine carries out what providers do beside what the engine does.
type providingEngine struct {
	compose.Engine
	provide func(ctx context.Context, op compose.Op) error
}

// Do implements compose.Engine.
func (e *providingEngine) Do(ctx context.Context, op compose.Op, made compose.Results, sink compose.Sink) (compose.Result, error) {
	if op.Kind == compose.OpRunProvider {
		return compose.Result{}, e.provide(ctx, op)
	}
	return e.Engine.Do(ctx, op, made, sink)
}

// awaitDependencies waits until the containers that a service depends on are as it needs them. They have been started.
func (a *app) awaitDependencies(ctx context.Context, e compose.Engine, p *types.Project, s types.ServiceConfig) error {
	have, err := e.Observe(ctx, compose.Query{Project: p.Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d := s.DependsOn[name]
		if d.Condition == types.ServiceConditionStarted {
			continue
		}
		for _, c := range containersOf(have, []string{name}) {
			if c.OneOff() {
				continue
			}
			err := e.Await(ctx, c.ID, compose.Condition(d.Condition))
			switch {
			case err != nil && d.Required:
				return fmt.Errorf("service %q: %w", s.Name, err)
			case err != nil:
				a.warn(fmt.Sprintf("service %q goes without %q: %v", s.Name, name, err))
			}
		}
	}
	return nil
}
