// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"slices"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
)

func newVolumesCommand(a *app) *cobra.Command {
	var quiet bool
	var format string
	c := &cobra.Command{
		Use:     "volumes [OPTIONS] [SERVICE...]",
		Short:   "List the application's volumes",
		GroupID: groupLook,
		Example: `  dev volumes                            all of the project
  dev volumes db                         those that db has mounted
  dev volumes --format '{{.Name}} {{.Mountpoint}}'`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runVolumes(c.Context(), quiet, format, args)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show only names")
	c.Flags().StringVar(&format, "format", "table", "table, json, or a Go template; table TEMPLATE adds a header")
	return c
}

func (a *app) runVolumes(ctx context.Context, quiet bool, format string, services []string) error {
	p, name, err := a.loadOrName(ctx)
	if err != nil {
		return err
	}
	if p != nil {
		if err := checkServices(p, services); err != nil {
			return err
		}
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	volumes, err := e.Volumes(ctx, name)
	if err != nil {
		return err
	}
	if len(services) > 0 {
		have, err := e.Observe(ctx, compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true})
		if err != nil {
			return err
		}
		volumes = mountedVolumes(volumes, containersOf(have, services))
	}
	if quiet {
		var names []string
		for _, v := range volumes {
			names = append(names, v.Name)
		}
		return a.printLines(names)
	}
	if format == "" {
		format = formatter.TableFormatKey
	}
	err = formatter.VolumeWrite(formatter.Context{Output: a.out, Format: formatter.NewVolumeFormat(format, false)}, volumes)
	if err != nil {
		return withHint(fmt.Errorf("use --format %q: %w", format, err), "see dev volumes --format json for the fields")
	}
	return nil
}

// mountedVolumes are those of the volumes that one of the containers has mounted.
func mountedVolumes(volumes []volume.Volume, containers []compose.Container) []volume.Volume {
	return slices.DeleteFunc(volumes, func(v volume.Volume) bool {
		return !slices.ContainsFunc(containers, func(c compose.Container) bool {
			return slices.ContainsFunc(c.Mounts, func(m compose.Mount) bool { return m.Name == v.Name })
		})
	})
}
