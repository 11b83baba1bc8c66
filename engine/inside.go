// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
)

// Processes are those of one container, as ps inside it would list them: a row of values under each title.
type Processes struct {
	Container compose.Container
	Titles    []string
	Rows      [][]string
}

// Top lists the processes of containers, in their order. A container that has ended meanwhile has none.
func (c *Client) Top(ctx context.Context, containers []compose.Container) ([]Processes, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Processes, len(containers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, ctr := range containers {
		g.Go(func() error {
			r, err := api.ContainerTop(gctx, ctr.ID, client.ContainerTopOptions{})
			if gone(err) || says(err, "is not running") {
				out[i] = Processes{Container: ctr}
				return nil
			}
			if err != nil {
				return doing(fmt.Sprintf("list the processes of container %q", ctr.Name), c.explain(err))
			}
			out[i] = Processes{Container: ctr, Titles: r.Titles, Rows: r.Processes}
			return nil
		})
	}
	return out, g.Wait()
}

// Volumes lists the volumes of a project by name.
func (c *Client) Volumes(ctx context.Context, project string) ([]volume.Volume, error) {
	var list client.VolumeListResult
	err := c.optimistic(ctx, func(ctx context.Context, api *client.Client) (err error) {
		list, err = api.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(project)})
		return err
	})
	if err != nil {
		return nil, doing(fmt.Sprintf("list the volumes of project %q", project), err)
	}
	slices.SortFunc(list.Items, func(a, b volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return list.Items, nil
}

// WaitExit waits until a container does not run and returns its exit code. It returns at once for one that has ended already.
func (c *Client) WaitExit(ctx context.Context, containerID string) (code int, err error) {
	api, err := c.conn(ctx)
	if err != nil {
		return 0, err
	}
	w := api.ContainerWait(ctx, containerID, client.ContainerWaitOptions{})
	select {
	case r := <-w.Result:
		if r.Error != nil {
			return 0, errors.New(r.Error.Message)
		}
		return int(r.StatusCode), nil
	case err := <-w.Error:
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, c.explain(err)
	}
}

// CommitOptions say what [Client.Commit] makes of a container.
type CommitOptions struct {
	// Ref names the image; empty leaves it without a name.
	Ref             string
	Author, Message string
	// Changes are Dockerfile instructions to apply ("CMD sleep 1").
	Changes []string
	// NoPause lets the container run on while its files are read.
	NoPause bool
}

// Commit makes an image of a container's file system and settings, and returns the image's ID.
func (c *Client) Commit(ctx context.Context, containerID string, o CommitOptions) (imageID string, err error) {
	api, err := c.conn(ctx)
	if err != nil {
		return "", err
	}
	r, err := api.ContainerCommit(ctx, containerID, client.ContainerCommitOptions{
		Reference: o.Ref, Comment: o.Message, Author: o.Author, Changes: o.Changes, NoPause: o.NoPause,
	})
	if err != nil {
		return "", c.explain(err)
	}
	return r.ID, nil
}

// Export writes a container's file system to w as a tar archive.
func (c *Client) Export(ctx context.Context, containerID string, w io.Writer) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	r, err := api.ContainerExport(ctx, containerID, client.ContainerExportOptions{})
	if err != nil {
		return c.explain(err)
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	return nil
}
