// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/engine/native"
	"github.com/seed71221737/dev/engine/native/archive"
)

// engineVersions are the versions of the bundle, and of what runs.
type engineVersions struct {
	Bundle  *bundleVersion `json:"bundle,omitempty"`
	Running *bundleVersion `json:"running,omitempty"`
}

type bundleVersion struct {
	Source     string              `json:"source"`
	Version    string              `json:"version"`
	Components []archive.Component `json:"components"`
}

func newEngineVersionCommand(a *app) *cobra.Command {
	var format formatFlag
	c := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show what the engine consists of",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := a.engineVersions(c)
			if format.json() {
				return json.NewEncoder(a.out).Encode(v)
			}
			return a.printVersions(v)
		},
	}
	format.add(c)
	return c
}

func (a *app) engineVersions(c *cobra.Command) engineVersions {
	var v engineVersions
	exe, err := os.Executable()
	if err == nil {
		if source, err := native.FindSource(a.getenv, exe); err == nil {
			if m, err := source.Manifest(); err == nil {
				v.Bundle = &bundleVersion{source.Name, m.Version, m.Components}
			} else {
				a.warn(err.Error())
			}
		}
	}
	if st, err := a.service().Status(c.Context()); err == nil && st.Report != nil {
		v.Running = &bundleVersion{st.Report.Dir, st.Report.Version, st.Report.Bundle}
	}
	return v
}

func (a *app) printVersions(v engineVersions) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, part := range []struct {
		title string
		v     *bundleVersion
	}{{"Bundle", v.Bundle}, {"Running", v.Running}} {
		if part.v == nil {
			fmt.Fprintf(w, "%s:\tnone\n", part.title)
			continue
		}
		fmt.Fprintf(w, "%s:\t%s\t(%s)\n", part.title, part.v.Version, part.v.Source)
		for _, c := range part.v.Components {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", c.Name, c.Version, c.License)
		}
	}
	return w.Flush()
}

// formatFlag is --format pretty|json, and --json for short.
type formatFlag struct {
	name  string
	short bool
}

func (f *formatFlag) add(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "format", "pretty", "format of the output: pretty or json")
	c.Flags().BoolVar(&f.short, "json", false, "the same as --format json")
	c.PreRunE = func(*cobra.Command, []string) error {
		if f.name != "pretty" && f.name != "json" {
			return fmt.Errorf("unknown format %q: use pretty or json", f.name)
		}
		return nil
	}
}

func (f *formatFlag) json() bool { return f.short || f.name == "json" }
