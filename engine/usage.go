// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"

	"github.com/moby/moby/client"
)

// Usage is what things of one kind take up in the engine, in bytes, and how much of that nothing uses.
type Usage struct {
	Size        int64 `json:"size"`
	Reclaimable int64 `json:"reclaimable"`
}

// DiskUsage is what the engine keeps on its disk.
type DiskUsage struct {
	Images     Usage `json:"images"`
	Containers Usage `json:"containers"`
	Volumes    Usage `json:"volumes"`
	BuildCache Usage `json:"build_cache"`
}

// DiskUsage asks the engine what it keeps. That may take seconds: the engine counts the files of containers and volumes.
func (c *Client) DiskUsage(ctx context.Context) (u DiskUsage, err error) {
	err = c.optimistic(ctx, func(ctx context.Context, api *client.Client) error {
		r, err := api.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, BuildCache: true, Volumes: true})
		u = DiskUsage{
			Images:     Usage{r.Images.TotalSize, r.Images.Reclaimable},
			Containers: Usage{r.Containers.TotalSize, r.Containers.Reclaimable},
			Volumes:    Usage{r.Volumes.TotalSize, r.Volumes.Reclaimable},
			BuildCache: Usage{r.BuildCache.TotalSize, r.BuildCache.Reclaimable},
		}
		return err
	})
	return u, err
}
