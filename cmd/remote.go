// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/endpoint"
	"github.com/seed71221737/dev/engine/remote"
)

// remoteFiles is what fetches Compose files for this command; each address once.
func (a *app) remoteFiles() (*remote.Fetcher, error) {
	if a.fetcher != nil {
		return a.fetcher, nil
	}
	dir, err := config.Dir(a.getenv)
	if err != nil {
		return nil, err
	}
	docker, err := endpoint.DockerDir(a.getenv)
	if err != nil {
		return nil, err
	}
	a.fetcher = remote.New(remote.Options{
		Cache: filepath.Join(dir, "cache", "compose"), DockerDir: docker, Environ: a.env, Insecure: a.insecure, Offline: a.offline, Logger: a.logger(),
	})
	return a.fetcher, nil
}

// remoteLoaders are those that read Compose files from git and registries.
func (a *app) remoteLoaders() ([]loader.ResourceLoader, error) {
	f, err := a.remoteFiles()
	if err != nil {
		return nil, err
	}
	return f.Loaders(), nil
}

// mainFile is the first Compose file that was asked for by name; empty if they are searched for.
func (a *app) mainFile(p *types.Project) string {
	if len(a.files) > 0 {
		return a.files[0]
	}
	sep := a.setting(p, consts.ComposePathSeparator)
	if sep == "" {
		sep = string(filepath.ListSeparator)
	}
	first, _, _ := strings.Cut(a.setting(p, consts.ComposeFilePath), sep)
	return first
}

// trustRemote asks before a project that was fetched is run: for the files that it fetched itself, which nobody here has named, and, on a terminal,
// for the variables that it takes from here. yes answers for the user.
func (a *app) trustRemote(ctx context.Context, p *types.Project, yes bool) error {
	if a.fetcher == nil {
		return nil
	}
	fetched, main := a.fetcher.Fetched(), a.mainFile(p)
	if len(fetched) == 0 || !slices.Contains(fetched, main) {
		return nil
	}
	a.say(fmt.Sprintf("%s is kept in %s", main, p.WorkingDir))
	if yes || a.dryRun {
		return nil
	}
	if more := slices.DeleteFunc(fetched, func(address string) bool { return slices.Contains(a.files, address) || address == main }); len(more) > 0 {
		a.say("It includes files from elsewhere, which can do whatever containers can do here:\n  " + strings.Join(more, "\n  "))
		ok, err := a.confirm(ctx, "Do you trust them?")
		if err != nil {
			return err
		}
		if !ok {
			return withHint(errors.New("not confirmed"), "read them first: dev -f %s config; --yes confirms", main)
		}
	}
	return a.confirmVariables(ctx)
}

// confirmVariables shows which variables a fetched project takes from here, and their values.
func (a *app) confirmVariables(ctx context.Context) error {
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return nil
	}
	l, err := a.loadOptions()
	if err != nil {
		return err
	}
	l.NoInterpolate, l.Warn = true, nil
	model, err := compose.Model(ctx, l)
	if err != nil {
		return err
	}
	variables := template.ExtractVariables(model, template.DefaultPattern)
	if len(variables) == 0 {
		return nil
	}
	t := table{header: []string{"VARIABLE", "VALUE", "SOURCE", "REQUIRED", "DEFAULT"}}
	for _, v := range slices.SortedFunc(maps.Values(variables), func(x, y template.Variable) int { return cmp.Compare(x.Name, y.Name) }) {
		value, source := v.DefaultValue, "compose file"
		if set, ok := a.lookupEnv(v.Name); ok {
			value, source = set, "environment"
		} else if value == "" {
			value, source = "<unset>", "none"
		}
		required := "no"
		if v.Required {
			required = "yes"
		}
		t.add(v.Name, value, source, required, v.DefaultValue)
	}
	a.say("It uses these variables:")
	if err := t.write(a.err); err != nil {
		return err
	}
	if ok, err := a.agree(ctx, "Go on with these values?", true); err != nil || !ok {
		return cmp.Or(err, errors.New("not confirmed"))
	}
	return nil
}
