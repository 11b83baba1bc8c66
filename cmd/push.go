// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/engine"
)

type pushOptions struct {
	quiet, includeDeps, ignoreFailures bool
}

func newPushCommand(a *app) *cobra.Command {
	var o pushOptions
	c := &cobra.Command{
		Use:     "push [OPTIONS] [SERVICE...]",
		Short:   "Push the images of services that are built",
		GroupID: groupImages,
		Long: `Pushes the image of each service that has both a build section and an image name, and
the further tags of its build, to their registries. Images of other services are not
yours to push: they are skipped.`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runPush(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.includeDeps, "include-deps", false, "push for the services that these depend on, too")
	f.BoolVar(&o.ignoreFailures, "ignore-push-failures", false, "go on without images that cannot be pushed")
	return c
}

func (a *app) runPush(ctx context.Context, o pushOptions, services []string) error {
	p, err := a.load(ctx, services...)
	if err != nil {
		return err
	}
	if err := checkServices(p, services); err != nil {
		return err
	}
	if !o.includeDeps {
		if p, err = p.WithSelectedServices(services, types.IgnoreDependencies); err != nil {
			return err
		}
	}
	images, skipped := pushable(p)
	if a.dryRun {
		for _, ref := range images {
			if err := a.sayDryRun("push %s", ref); err != nil {
				return err
			}
		}
		return nil
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	return a.pushProjectImages(ctx, e, o, images, skipped)
}

// pushable are the images to push, and the services that have none of their own.
func pushable(p *types.Project) (images, skipped []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Build == nil || s.Image == "" {
			skipped = append(skipped, name)
			continue
		}
		for _, ref := range append([]string{s.Image}, s.Build.Tags...) {
			if !slices.Contains(images, ref) {
				images = append(images, ref)
			}
		}
	}
	return images, skipped
}

// pushProjectImages pushes images side by side and shows how it goes.
func (a *app) pushProjectImages(ctx context.Context, e *engine.Client, o pushOptions, images, skipped []string) error {
	p := a.startProgress("push", o.quiet)
	defer p.close()
	for _, name := range skipped {
		p.show(status{ID: "Service " + name, Text: "Skipped", State: rowDone})
	}
	g, ctx := errgroup.WithContext(ctx)
	if a.parallel > 0 {
		g.SetLimit(a.parallel)
	}
	for _, ref := range images {
		g.Go(func() error {
			row := status{ID: "Image " + ref, Text: "Pushing"}
			p.show(row)
			err := e.Push(ctx, ref, func(l engine.PushProgress) {
				p.show(status{ID: row.ID, Part: l.Layer, Text: l.Text, Current: l.Current, Total: l.Total})
			}, a.warn)
			switch {
			case err == nil:
				row.Text, row.State = "Pushed", rowDone
			case o.ignoreFailures && ctx.Err() == nil:
				row.Text, row.State, row.Details = "Warning", rowWarning, firstLine(err.Error())
				err = nil
			default:
				row.Text, row.State, row.Details = "Error", rowFailed, firstLine(err.Error())
				err = fmt.Errorf("push image %s: %w", ref, err)
			}
			p.show(row)
			return err
		})
	}
	return g.Wait()
}
