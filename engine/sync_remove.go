// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

const (
	// fewRemovals are removed one by one through the archive API, which is faster than to start a process.
	fewRemovals = 4
	// argumentBytes bounds the arguments of one rm; systems allow 128 KiB at the least.
	argumentBytes = 96 << 10
	// removalsAtOnce is how many removals through the archive API are under way at a time.
	removalsAtOnce = 4
)

// removeFiles deletes paths in a container: many with the container's own rm, a few, and where there is no rm, through the archive API.
func (c *Client) removeFiles(ctx context.Context, api *client.Client, id string, paths []string) error {
	if len(paths) > fewRemovals {
		for part := range argumentLists(paths) {
			command := append([]string{"rm", "-rf", "--"}, part...)
			if err := c.Exec(ctx, id, ExecOptions{Command: command, User: "0"}); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				c.log.Debug("remove files with rm", "container", id, "error", err)
				break // there is none, or it failed: what is left goes the other way
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(removalsAtOnce)
	for _, path := range paths {
		g.Go(func() error {
			if err := removeByArchive(ctx, api, id, path); err != nil {
				return readOnly(fmt.Errorf("remove %q: %w", path, c.explain(err)))
			}
			return nil
		})
	}
	return g.Wait()
}

// argumentLists splits paths into lists that fit a command line.
func argumentLists(paths []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(paths) > 0 {
			n, size := 0, 0
			for n < len(paths) && (n == 0 || size+len(paths[n]) < argumentBytes) {
				size += len(paths[n]) + 1
				n++
			}
			if !yield(paths[:n]) {
				return
			}
			paths = paths[n:]
		}
	}
}

// removeByArchive deletes a path with nothing but the archive API. The API can only put things; but it clears the place first where a thing of another
// kind is, and only then finds out that it cannot make the thing: a hard link to itself, which is gone. Whether the path is gone in the end is
// asked, not assumed.
func removeByArchive(ctx context.Context, api *client.Client, id, path string) error {
	there, err := exists(ctx, api, id, path)
	if err != nil || !there {
		return err
	}
	name := strings.TrimPrefix(path, "/")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: name}); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, putErr := api.CopyToContainer(ctx, id, client.CopyToContainerOptions{
		DestinationPath: "/", Content: &buf, AllowOverwriteDirWithFile: true,
	})
	if there, err = exists(ctx, api, id, path); err != nil || !there {
		return err
	}
	if putErr == nil {
		putErr = errors.New("the engine left it where it is")
	}
	return putErr
}

// exists reports whether a path is there in a container.
func exists(ctx context.Context, api *client.Client, id, path string) (bool, error) {
	_, err := api.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: path})
	if gone(err) {
		return false, nil
	}
	return err == nil, err
}
