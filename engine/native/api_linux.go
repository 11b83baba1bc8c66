// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// withAPI calls f with a client of our engine and closes it.
func withAPI(p Paths, f func(*client.Client) error) error {
	c, err := client.New(client.WithHost(p.Host()))
	if err != nil {
		return fmt.Errorf("talk to the engine: %w", err)
	}
	defer c.Close() // closes idle connections only
	return f(c)
}

// Bounds on stopping dockerd.
const (
	stopMargin  = 20 * time.Second
	stopDefault = 10 * time.Second // the grace of a container that names none
)

// stopDeadline is how long dockerd may take to end: as long as the containers
// that it stops may take.
func stopDeadline(p Paths, keepContainers bool) time.Duration {
	longest := stopDefault
	if keepContainers {
		return longest + stopMargin
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerDeadline)
	defer cancel()
	// an engine that does not answer has nobody left to wait for
	_ = withAPI(p, func(c *client.Client) error {
		list, err := c.ContainerList(ctx, client.ContainerListOptions{})
		if err != nil {
			return err
		}
		for _, item := range list.Items {
			got, err := c.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
			if err != nil || got.Container.Config == nil || got.Container.Config.StopTimeout == nil {
				continue
			}
			if grace := *got.Container.Config.StopTimeout; grace < 0 {
				longest = 24 * time.Hour // it said: for ever
			} else {
				longest = max(longest, time.Duration(grace)*time.Second)
			}
		}
		return nil
	})
	return longest + stopMargin
}

// askAPI completes a status with what the Docker API tells.
func askAPI(ctx context.Context, p Paths, st *Status) error {
	return withAPI(p, func(c *client.Client) error {
		v, err := c.ServerVersion(ctx, client.ServerVersionOptions{})
		if err != nil {
			return err
		}
		st.Engine = v.Version
		list, err := c.NetworkList(ctx, client.NetworkListOptions{})
		if err != nil {
			return err
		}
		routes, err := observeRoutes()
		if err != nil {
			return err
		}
		st.Problems = append(st.Problems, clashes(subnets(list.Items), routes)...)
		usage, err := c.DiskUsage(ctx, client.DiskUsageOptions{Images: true, Containers: true, Volumes: true, BuildCache: true})
		if err != nil {
			return err
		}
		st.Disk = &DiskUse{
			Images: usage.Images.TotalSize, Containers: usage.Containers.TotalSize,
			Volumes: usage.Volumes.TotalSize, BuildCache: usage.BuildCache.TotalSize, Free: freeSpace(st.Report.DataRoot),
		}
		return nil
	})
}

// subnets maps the networks' names to their IPv4 subnets.
func subnets(networks []network.Summary) map[string][]netip.Prefix {
	found := map[string][]netip.Prefix{}
	for _, n := range networks {
		for _, c := range n.IPAM.Config {
			if n.Driver == "bridge" && c.Subnet.IsValid() {
				found[n.Name] = append(found[n.Name], c.Subnet)
			}
		}
	}
	return found
}

// freeSpace is what is left on the file system of a folder, in bytes; 0 when
// it cannot be told.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
