// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
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

// endProviders has the providers of services stop or remove what they made.
func (a *app) endProviders(ctx context.Context, e *engine.Client, p *types.Project, services []string, command string) error {
	wanted, err := compose.Providers(p, services, len(services) > 0)
	if err != nil {
		return err
	}
	for i := len(wanted) - 1; i >= 0; i-- {
		a.say(fmt.Sprintf("Service %s: %s %s", wanted[i].Name, wanted[i].Provider.Type, command))
		if _, err := a.programs(e).Run(ctx, p, wanted[i], command); err != nil {
			return err
		}
	}
	return nil
}
