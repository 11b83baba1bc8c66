// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/environments"
)

func newEnvCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "env COMMAND",
		Short:   "Run several copies of an application side by side",
		GroupID: groupRun,
		Long: `An environment is a copy of the application with a project name, networks, volumes
and host ports of its own. Every linked git worktree has one, named after it; any
other is used with --env NAME before or after the command, or DEV_ENV=NAME. The
first worktree is the environment main, which is the application as its Compose
files describe it.

Ports that the files fix, names of containers, networks, volumes and images, and
subnets are moved; dev up says what it moves, once. Ports stay the same until the
environment is removed.`,
		Example: `  git worktree add ../fix && cd ../fix && dev up -d
  dev --env try up -d
  dev env create try --from main    with a copy of main's volumes
  dev env ls                        all environments with their addresses
  dev env exec npm test             with DEV_PORT_web_80 and the like set`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	c.AddCommand(newEnvLsCommand(a), newEnvCreateCommand(a), newEnvRmCommand(a), newEnvUseCommand(a), newEnvShowCommand(a), newEnvVarsCommand(a),
		newEnvExecCommand(a))
	return c
}

// here is the project in the environment that a command works in, and its base.
type here struct {
	base  string
	place place
	p     *types.Project
	state environments.State
}

// environmentHere loads the project with all its services in the environment to work in.
func (a *app) environmentHere(ctx context.Context) (here, error) {
	var h here
	o, err := a.loadOptions()
	if err != nil {
		return h, err
	}
	if h.place, err = a.choosePlace(startFolder(o)); err != nil {
		return h, err
	}
	if h.base, err = a.baseName(ctx, h.place, &o); err != nil {
		return h, err
	}
	if h.p, err = a.loadWith(ctx, o, nil); err != nil {
		return h, err
	}
	store, err := a.environmentStore()
	if err != nil {
		return h, err
	}
	h.state, err = store.Read()
	return h, err
}

// address is one published port of an environment.
type address struct {
	Service  string `json:"service"`
	Target   int    `json:"target"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	URL      string `json:"url"`
	Variable string `json:"variable"`
}

// String is what `env ls` shows of it.
func (d address) String() string { return fmt.Sprintf("%s:%d %s", d.Service, d.Target, d.URL) }

// addressesOf lists published ports by compose.PortNeed.Key.
func addressesOf(ports map[string]uint16) []address {
	list := []address{}
	for _, key := range slices.Sorted(maps.Keys(ports)) {
		plain, _, _ := strings.Cut(key, "#")
		parts := strings.Split(plain, "/")
		target, _ := strconv.Atoi(parts[1])
		d := address{Service: parts[0], Target: target, Protocol: parts[2], Port: ports[key], Variable: compose.PortVariable(key)}
		d.URL = d.url()
		list = append(list, d)
	}
	slices.SortStableFunc(list, func(x, y address) int { return strings.Compare(x.Service, y.Service) })
	return list
}

// url is where the port is reached from this host. Ports that web servers usually listen on are taken for such.
func (d address) url() string {
	scheme := ""
	switch {
	case d.Protocol != "tcp":
		return fmt.Sprintf("localhost:%d/%s", d.Port, d.Protocol)
	case slices.Contains([]int{443, 8443}, d.Target):
		scheme = "https://"
	case slices.Contains([]int{80, 3000, 4200, 5000, 5173, 8000, 8080, 8081, 8888}, d.Target):
		scheme = "http://"
	}
	return fmt.Sprintf("%slocalhost:%d", scheme, d.Port)
}

// publishedPorts are the host ports of a project as it is.
func publishedPorts(p *types.Project) map[string]uint16 {
	vars := compose.PortVariables(p)
	ports := map[string]uint16{}
	for _, need := range compose.NeedsOf(p).Ports {
		if n, err := strconv.ParseUint(vars[compose.PortVariable(need.Key)], 10, 16); err == nil {
			ports[need.Key] = uint16(n)
		}
	}
	return ports
}

func newEnvUseCommand(a *app) *cobra.Command {
	var reset bool
	c := &cobra.Command{
		Use:   "use NAME",
		Short: "Choose the environment that commands in this folder work in",
		Long: `Remembers NAME for this folder (of a git worktree: for all of it). main is the
application as its files describe it, also in a linked worktree.`,
		Args: takes(0, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if reset == (len(args) == 1) {
				return usagef("env use takes either NAME or --reset")
			}
			name := ""
			if !reset {
				name = args[0]
				if err := environments.CheckName(name); err != nil {
					return withHint(err, "%s", "try "+environments.Normalize(name))
				}
			}
			return a.runEnvUse(c.Context(), name)
		},
	}
	c.Flags().BoolVar(&reset, "reset", false, "forget the choice")
	return c
}

func (a *app) runEnvUse(ctx context.Context, name string) error {
	dir := a.cwd
	if wt, ok, err := environments.FindWorktree(a.cwd); err == nil && ok {
		dir = wt.Root
	}
	store, err := a.environmentStore()
	if err != nil {
		return err
	}
	err = store.Update(ctx, func(s *environments.State) error {
		if s.Use == nil {
			s.Use = map[string]string{}
		}
		if s.Use[dir] = name; name == "" {
			delete(s.Use, dir)
		}
		return nil
	})
	if err == nil && name != "" {
		a.say(fmt.Sprintf("commands in %s work in environment %s", dir, name))
	}
	return err
}

func newEnvShowCommand(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the environment that commands here work in, and what it changes",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runEnvShow(c.Context(), format)
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or json")
	return c
}

func (a *app) runEnvShow(ctx context.Context, format string) error {
	if format != "text" && format != "json" {
		return unknownFormat(format, "text", "json")
	}
	h, err := a.environmentHere(ctx)
	if err != nil {
		return err
	}
	var notes []string
	if a.fitted != nil {
		notes = a.fitted.notes
	}
	addresses := addressesOf(publishedPorts(h.p))
	if format == "json" {
		return writeJSON(a.out, struct {
			Name, Why, Base, Project, Folder string
			Addresses                        []address
			Changes                          []string
		}{h.place.name, h.place.why, h.base, h.p.Name, h.place.dir, addresses, notes})
	}
	lines := []string{"environment " + h.place.name, "project     " + h.p.Name, "folder      " + h.place.dir}
	if h.place.why != "" {
		lines[0] += " (" + h.place.why + ")"
	}
	for _, d := range addresses {
		lines = append(lines, "address     "+d.String())
	}
	for _, note := range notes {
		lines = append(lines, "change      "+note)
	}
	return a.printLines(lines)
}
