// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newImagesCommand(a *app) *cobra.Command {
	var quiet bool
	var format string
	c := &cobra.Command{
		Use:               "images [OPTIONS] [SERVICE...]",
		Short:             "List the images that the containers run",
		GroupID:           groupImages,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return unknownFormat(format, "table", "json")
			}
			return a.runImages(c.Context(), quiet, format, args)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show only IDs")
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func (a *app) runImages(ctx context.Context, quiet bool, format string, services []string) error {
	name, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	containers := slices.DeleteFunc(slices.Clone(have.Containers), func(c compose.Container) bool {
		return c.OneOff() || len(services) > 0 && !slices.Contains(services, c.Service())
	})
	images, err := e.Images(ctx, containers)
	switch {
	case err != nil:
		return err
	case quiet:
		var ids []string
		for _, i := range images {
			if id := strings.TrimPrefix(i.ID, "sha256:"); !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		return a.printLines(ids)
	case format == "json":
		return writeJSON(a.out, imageRows(images))
	}
	return imageTable(images, have.Now).write(a.out)
}

// imageRow is one container's image, with the fields that docker compose's JSON has.
type imageRow struct {
	ID            string
	ContainerName string
	Repository    string
	Tag           string
	Platform      string
	Size          int64
	Created       *time.Time `json:",omitempty"`
	LastTagTime   time.Time  `json:",omitzero"`
}

func imageRows(images []engine.ContainerImage) []imageRow {
	rows := []imageRow{}
	for _, i := range images {
		r := imageRow{
			ID: i.ID, ContainerName: i.Container.Name, Repository: i.Repository, Tag: i.Tag, Platform: i.Platform, Size: i.Size, LastTagTime: i.Tagged,
		}
		if !i.Created.IsZero() {
			r.Created = &i.Created
		}
		rows = append(rows, r)
	}
	return rows
}

func imageTable(images []engine.ContainerImage, now time.Time) *table {
	t := &table{header: []string{"CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"}}
	for _, i := range images {
		created := "N/A"
		if !i.Created.IsZero() {
			created = units.HumanDuration(now.Sub(i.Created)) + " ago"
		}
		t.add(i.Container.Name, cmp.Or(i.Repository, "<none>"), cmp.Or(i.Tag, "<none>"), i.Platform,
			formatter.TruncateID(strings.TrimPrefix(i.ID, "sha256:")), units.HumanSizeWithPrecision(float64(i.Size), 3), created)
	}
	return t
}
