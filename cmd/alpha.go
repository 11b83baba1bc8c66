// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

// newAlphaCommand holds what docker compose calls experimental. It is hidden there, too.
func newAlphaCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "alpha COMMAND", Short: "Commands that docker compose calls experimental", Hidden: true, GroupID: groupLook,
		RunE: onlySubcommands,
	}
	publish := newPublishCommand(a)
	publish.GroupID = ""
	c.AddCommand(newVizCommand(a), newGenerateCommand(a), publish)
	return c
}

type vizOptions struct {
	networks, ports, image, spaces bool
	indentation                    int
}

func newVizCommand(a *app) *cobra.Command {
	var o vizOptions
	c := &cobra.Command{
		Use:     "viz [OPTIONS]",
		Short:   "Show the services and what they depend on as a graph for Graphviz",
		Example: `  dev alpha viz | dot -Tsvg > services.svg`,
		Args:    takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.indentation < 0 {
				return usagef("--indentation-size must not be negative")
			}
			return a.runViz(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.networks, "networks", false, "show the networks of services")
	f.BoolVar(&o.ports, "ports", false, "show the ports of services")
	f.BoolVar(&o.image, "image", false, "show the images of services")
	f.IntVar(&o.indentation, "indentation-size", 1, "number of tabs or spaces to indent by")
	f.BoolVar(&o.spaces, "spaces", false, "indent by spaces instead of tabs")
	return c
}

func (a *app) runViz(ctx context.Context, o vizOptions) error {
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	indent := "\t"
	if o.spaces {
		indent = " "
	}
	return o.write(a.out, p, strings.Repeat(indent, o.indentation))
}

// write prints the graph: a node for each service, and an edge from each to what it depends on.
func (o vizOptions) write(w io.Writer, p *types.Project, indent string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n%slayout=dot;\n", p.Name, indent)
	names := slices.Sorted(maps.Keys(p.Services))
	for _, name := range names {
		fmt.Fprintf(&b, "%s%q [style=\"filled\" label=<<font point-size=\"15\">%s</font>%s>];\n", indent, name, name, o.details(p, p.Services[name]))
	}
	b.WriteByte('\n')
	for _, name := range names {
		for _, needed := range slices.Sorted(slices.Values(p.Services[name].GetDependencies())) {
			fmt.Fprintf(&b, "%s%q -> %q;\n", indent, name, needed)
		}
	}
	b.WriteString("}\n\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// details are what else a node says.
func (o vizOptions) details(p *types.Project, s types.ServiceConfig) string {
	list := func(title string, items []string) string {
		if len(items) == 0 {
			return ""
		}
		return `<font point-size="10"><br/><br/><b>` + title + `:</b><br/>` + strings.Join(items, "<br/>") + `</font>`
	}
	out := ""
	if o.networks {
		out += list("Networks", s.NetworksByPriority())
	}
	if o.ports {
		var ports []string
		for _, port := range s.Ports {
			host := ""
			if port.HostIP != "" {
				host = port.HostIP + ":"
			}
			ports = append(ports, fmt.Sprintf("%s%s:%d (%s, %s)", host, port.Published, port.Target, port.Protocol, port.Mode))
		}
		out += list("Ports", ports)
	}
	if o.image {
		out += list("Image", []string{compose.ImageName(p, s)})
	}
	return out
}
