// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"

	imageref "github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

func newCommitCommand(a *app) *cobra.Command {
	var o engine.CommitOptions
	var index int
	var pause bool
	c := &cobra.Command{
		Use:     "commit [OPTIONS] SERVICE [REPOSITORY[:TAG]]",
		Short:   "Make an image of a container as it is now",
		GroupID: groupImages,
		Long: `Makes an image of a container's file system and settings. Volumes are not part of it.
The container is frozen meanwhile, unless --pause=false is given.`,
		Example: `  dev commit web shop:broken                     keep a state to look at later
  dev commit -c 'CMD ["sh"]' web shop:debug      with another command`,
		Args:              takes(1, 2, "SERVICE"),
		ValidArgsFunction: a.completeFirstService,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				o.Ref = args[1]
			}
			o.NoPause = !pause
			return a.runCommit(c.Context(), o, args[0], index)
		},
	}
	f := c.Flags()
	f.IntVar(&index, "index", 0, "`NUMBER` of the container, when the service has several")
	f.BoolVarP(&pause, "pause", "p", true, "freeze the container meanwhile")
	f.StringVarP(&o.Message, "message", "m", "", "`TEXT` to keep with the image")
	f.StringVarP(&o.Author, "author", "a", "", "`NAME` of the author to keep with the image")
	f.StringArrayVarP(&o.Changes, "change", "c", nil, "Dockerfile `INSTRUCTION` to apply; may be repeated")
	return c
}

func (a *app) runCommit(ctx context.Context, o engine.CommitOptions, service string, index int) error {
	if o.Ref != "" {
		if err := checkTag(o.Ref); err != nil {
			return err
		}
	}
	return a.onContainers(ctx, func(e *engine.Client, have compose.Snapshot) error {
		c, err := pickAnyContainer(have, service, index)
		if err != nil {
			return err
		}
		if a.dryRun {
			return a.sayDryRun("make image %q of container %s", o.Ref, c.Name)
		}
		p := a.startProgress("commit", false)
		defer p.close()
		row := status{ID: "Container " + c.Name, Text: "Committing"}
		p.show(row)
		id, err := e.Commit(ctx, c.ID, o)
		if err != nil {
			row.Text, row.State = "Error", rowFailed
			p.show(row)
			return fmt.Errorf("commit container %q: %w", c.Name, err)
		}
		row.Text, row.State = "Committed as "+id, rowDone
		p.show(row)
		return nil
	})
}

// checkTag refuses what no image can be named.
func checkTag(ref string) error {
	named, err := imageref.ParseNormalizedNamed(ref)
	if err != nil {
		return usagef("%q is not an image's name: %v", ref, err)
	}
	if _, ok := named.(imageref.Digested); ok {
		return usagef("%q has a digest: give a name and a tag", ref)
	}
	return nil
}
