// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine"
)

type lsOptions struct {
	all, quiet bool
	format     string
	filters    []string
}

func newLsCommand(a *app) *cobra.Command {
	var o lsOptions
	c := &cobra.Command{
		Use:               "ls [OPTIONS]",
		Short:             "List the applications that run on the engine",
		GroupID:           groupLook,
		Args:              takes(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runLs(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "list stopped ones, too")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show only names")
	f.StringVar(&o.format, "format", "table", "table or json")
	f.StringArrayVar(&o.filters, "filter", nil, "list only those with a `KEY=VALUE`; the key is name, its value a name or pattern")
	return c
}

// projectRow is one project in `ls`, with the fields that docker compose's JSON has.
type projectRow struct {
	Name        string
	Status      string
	ConfigFiles string
}

func (a *app) runLs(ctx context.Context, o lsOptions) error {
	keep, err := nameFilter(o.filters)
	if err != nil {
		return err
	}
	if o.format != "table" && o.format != "json" {
		return unknownFormat(o.format, "table", "json")
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	projects, err := e.Projects(ctx)
	if err != nil {
		return err
	}
	rows := projectRows(projects, o.all, keep)
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
	t := table{header: []string{"NAME", "STATUS", "CONFIG FILES"}}
	for _, r := range rows {
		t.add(r.Name, r.Status, r.ConfigFiles)
	}
	return t.write(a.out)
}

// projectRows says for each project how many of its containers are in which state; without all only of running ones.
func projectRows(projects []engine.Project, all bool, keep func(string) bool) []projectRow {
	rows := []projectRow{}
	for _, p := range projects {
		var states []string
		for _, s := range slices.Sorted(maps.Keys(p.States)) {
			if all || up(s) {
				states = append(states, fmt.Sprintf("%s(%d)", s, p.States[s]))
			}
		}
		if len(states) == 0 || !keep(p.Name) {
			continue
		}
		files := strings.Join(p.ConfigFiles, ",")
		if files == "" {
			files = "N/A"
		}
		rows = append(rows, projectRow{p.Name, strings.Join(states, ", "), files})
	}
	return rows
}

// nameFilter reads --filter name=VALUE, as the docker CLI means it: part of a name, or a regular expression; any of several.
func nameFilter(filters []string) (keep func(string) bool, err error) {
	var patterns []*regexp.Regexp
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok || key != "name" {
			return nil, usagef("unknown filter %q: use name=NAME", f)
		}
		re, err := regexp.Compile(value)
		if err != nil {
			return nil, usagef("read --filter %q: %v", f, err)
		}
		patterns = append(patterns, re)
	}
	return func(name string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	}, nil
}
