// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/environments"
)

type envLsOptions struct {
	all, quiet bool
	format     string
}

func newEnvLsCommand(a *app) *cobra.Command {
	var o envLsOptions
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the environments of the application, with their addresses",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runEnvLs(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "list those of all applications")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show only names")
	f.StringVar(&o.format, "format", "table", "table or json")
	return c
}

// environmentRow is one environment in `env ls`.
type environmentRow struct {
	Name      string    `json:"name"`
	Base      string    `json:"base"`
	Project   string    `json:"project"`
	Status    string    `json:"status"`
	Folder    string    `json:"folder"`
	Current   bool      `json:"current"`
	Addresses []address `json:"addresses"`
}

func (a *app) runEnvLs(ctx context.Context, o envLsOptions) error {
	if o.format != "table" && o.format != "json" {
		return unknownFormat(o.format, "table", "json")
	}
	a.lookOnly = true
	rows, err := a.environmentRows(ctx, o.all)
	if err != nil {
		return err
	}
	switch {
	case o.quiet:
		var names []string
		for _, r := range rows {
			names = append(names, r.Name)
		}
		return a.printLines(names)
	case o.format == "json":
		return writeJSON(a.out, rows)
	}
	t := table{header: []string{"NAME", "PROJECT", "STATUS", "FOLDER", "ADDRESSES"}}
	for _, r := range rows {
		name, shown := r.Name, make([]string, len(r.Addresses))
		if r.Current {
			name += " *"
		}
		for i, d := range r.Addresses {
			shown[i] = d.String()
		}
		t.add(name, r.Project, r.Status, r.Folder, strings.Join(shown, ", "))
	}
	return t.write(a.out)
}

// environmentRows lists the environments of the project here, main first; where there is no project, and with all, those of all projects.
func (a *app) environmentRows(ctx context.Context, all bool) ([]environmentRow, error) {
	h, err := a.environmentHere(ctx)
	switch {
	case err != nil && !(all || errors.Is(err, fs.ErrNotExist)):
		return nil, err
	case err != nil:
		store, err := a.environmentStore()
		if err != nil {
			return nil, err
		}
		if h.state, err = store.Read(); err != nil {
			return nil, err
		}
		all = true
	}
	rows := []environmentRow{}
	if h.p != nil {
		main, err := a.mainRow(ctx, h)
		if err != nil {
			return nil, err
		}
		rows = append(rows, main)
	}
	for _, r := range h.state.Environments {
		if all || r.Base == h.base {
			rows = append(rows, environmentRow{
				Name: r.Name, Base: r.Base, Project: r.Project, Folder: r.Dir, Addresses: addressesOf(r.Ports),
				Current: r.Base == h.base && r.Name == h.place.name,
			})
		}
	}
	a.addStatus(ctx, rows)
	return rows, nil
}

// mainRow is the environment main: the project as the files here describe it.
func (a *app) mainRow(ctx context.Context, h here) (environmentRow, error) {
	row := environmentRow{
		Name: environments.Main, Base: h.base, Project: h.base, Folder: h.place.wt.Main, Current: h.place.name == environments.Main,
	}
	if row.Folder == "" {
		row.Folder = h.place.dir
	}
	p, err := a.loadIn(ctx, environments.Main, h.base)
	if err != nil {
		return row, err
	}
	row.Addresses = addressesOf(publishedPorts(p))
	return row, nil
}

// loadIn loads the project in another environment than that of the folder.
func (a *app) loadIn(ctx context.Context, environment, base string) (*types.Project, error) {
	other := &app{in: strings.NewReader(""), out: a.out, err: a.err, env: a.env, cwd: a.cwd, globals: a.globals}
	other.envName = environment
	o, err := other.loadOptions()
	if err != nil {
		return nil, err
	}
	o.ProjectName, o.Warn = base, nil
	p, err := other.loadWith(ctx, o, nil)
	if err == nil && environment != environments.Main {
		a.fitted = other.fitted
	}
	return p, err
}

// addStatus says of each project how many of its containers are in which state, if the engine answers.
func (a *app) addStatus(ctx context.Context, rows []environmentRow) {
	states := map[string]string{}
	e, err := a.openEngine(ctx, wantsEngine)
	if err == nil {
		defer e.Close()
		projects, listErr := e.Projects(ctx)
		err = listErr
		for _, p := range projects {
			var parts []string
			for _, s := range slices.Sorted(maps.Keys(p.States)) {
				parts = append(parts, fmt.Sprintf("%s(%d)", s, p.States[s]))
			}
			states[p.Name] = strings.Join(parts, ", ")
		}
	}
	for i, r := range rows {
		switch {
		case err != nil:
			rows[i].Status = "no engine"
		case states[r.Project] == "":
			rows[i].Status = "none"
		default:
			rows[i].Status = states[r.Project]
		}
	}
}

// publishedByEngine adds the host ports that the engine chose, of containers that run.
func publishedByEngine(vars map[string]string, containers []compose.Container) {
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.HostPort == 0 || c.OneOff() {
				continue
			}
			name := compose.PortVariable(fmt.Sprintf("%s/%d/%s", c.Service(), p.ContainerPort, p.Protocol))
			if _, set := vars[name]; !set {
				vars[name] = fmt.Sprint(p.HostPort)
			}
		}
	}
}
