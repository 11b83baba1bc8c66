// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

type generateOptions struct{ format, name, dir string }

func newGenerateCommand(a *app) *cobra.Command {
	var o generateOptions
	c := &cobra.Command{
		Use:   "generate [OPTIONS] CONTAINER...",
		Short: "Write a Compose file for containers that are there",
		Long: `Describes containers, however they were made, as the services that would make them.
What their images say anyway is left out. Volumes and networks of others are external.`,
		Example: `  dev alpha generate --name shop web db > compose.yaml`,
		Args:    takes(1, -1, "CONTAINER"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.format != "yaml" && o.format != "json" {
				return unknownFormat(o.format, "yaml", "json")
			}
			return a.runGenerate(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.StringVar(&o.format, "format", "yaml", "yaml or json")
	f.StringVar(&o.name, "name", "", "`NAME` of the project to write")
	f.StringVar(&o.dir, "project-dir", "", "`FOLDER` of the project: paths in it are written relative to it")
	return c
}

func (a *app) runGenerate(ctx context.Context, o generateOptions, containers []string) error {
	g := compose.GenerateOptions{Project: o.name}
	if o.name != "" {
		if err := checkName(o.name); err != nil {
			return err
		}
	}
	if o.dir != "" {
		dir, err := a.path(o.dir)
		if err != nil {
			return err
		}
		g.Dir = dir
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	found, err := e.Find(ctx, containers...)
	if err != nil {
		return err
	}
	if g.Networks, g.Volumes, err = e.Labels(ctx); err != nil {
		return err
	}
	content, err := marshalProject(o.format, compose.Generate(found, g))
	if err != nil {
		return err
	}
	_, err = a.out.Write(bytes.ReplaceAll(content, []byte("$"), []byte("$$"))) // none of it is a variable
	return err
}
