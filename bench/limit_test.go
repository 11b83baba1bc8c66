// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

// limit does what the engine needs for n independent services and nothing more: one network, then create and start each container,
// parallel at a time. It returns how long that took, and how long removing all of it took.
func limit(t *testing.T, c *client.Client, n, parallel int) (up, down time.Duration) {
	t.Helper()
	const name = "bench-limit"
	began := time.Now()
	if _, err := c.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{Driver: "bridge"}); err != nil {
		t.Fatal(err)
	}
	each(t, n, parallel, func(ctx context.Context, i int) error {
		service := fmt.Sprintf("s%02d", i)
		made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name:       fmt.Sprintf("%s-%d", name, i),
			Config:     &container.Config{Image: image, Cmd: []string{"sleep", "3600"}, Labels: map[string]string{"bench": service}},
			HostConfig: &container.HostConfig{NetworkMode: name},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				name: {Aliases: []string{service}},
			}},
		})
		if err != nil {
			return err
		}
		_, err = c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
		return err
	})
	up = time.Since(began)
	began = time.Now()
	each(t, n, parallel, func(ctx context.Context, i int) error {
		_, err := c.ContainerRemove(ctx, fmt.Sprintf("%s-%d", name, i), client.ContainerRemoveOptions{Force: true})
		return err
	})
	if _, err := c.NetworkRemove(t.Context(), name, client.NetworkRemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	return up, time.Since(began)
}

// each calls do for 0 to n-1, parallel at a time.
func each(t *testing.T, n, parallel int, do func(context.Context, int) error) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
