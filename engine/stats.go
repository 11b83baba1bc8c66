// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Stats is what a container uses at one moment. All is 0 for one that does not run.
type Stats struct {
	// CPU is in percent of one processor: 150 is one and a half.
	CPU float64
	// Memory is in bytes, without what the kernel only caches; MemoryLimit is the engine's memory where there is no limit.
	Memory, MemoryLimit uint64
	// Received and Sent are bytes over all networks, Read and Written bytes of block devices, since the container started.
	Received, Sent, Read, Written uint64
	// PIDs counts processes and threads.
	PIDs uint64
}

// Stats measures what a container uses, once, over about a second.
func (c *Client) Stats(ctx context.Context, containerID string) (Stats, error) {
	var found Stats
	err := c.stats(ctx, containerID, client.ContainerStatsOptions{IncludePreviousSample: true}, func(s Stats) { found = s })
	return found, err
}

// FollowStats gives what a container uses to f about once a second, until ctx is done or the container is removed, which is no error. The first
// sample has no CPU.
func (c *Client) FollowStats(ctx context.Context, containerID string, f func(Stats)) error {
	return c.stats(ctx, containerID, client.ContainerStatsOptions{Stream: true}, f)
}

func (c *Client) stats(ctx context.Context, containerID string, o client.ContainerStatsOptions, f func(Stats)) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	r, err := api.ContainerStats(ctx, containerID, o)
	if err != nil {
		return c.explain(err)
	}
	defer r.Body.Close()
	for samples := json.NewDecoder(r.Body); ; {
		var s container.StatsResponse
		switch err := samples.Decode(&s); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		f(newStats(&s))
	}
}

func newStats(s *container.StatsResponse) Stats {
	out := Stats{CPU: cpuPercent(&s.PreCPUStats, &s.CPUStats), Memory: usedMemory(&s.MemoryStats), MemoryLimit: s.MemoryStats.Limit, PIDs: s.PidsStats.Current}
	for _, n := range s.Networks {
		out.Received += n.RxBytes
		out.Sent += n.TxBytes
	}
	for _, io := range s.BlkioStats.IoServiceBytesRecursive {
		switch io.Op {
		case "read", "Read":
			out.Read += io.Value
		case "write", "Write":
			out.Written += io.Value
		}
	}
	return out
}

// cpuPercent is the container's share of the processor time that passed between two samples, times the number of processors.
func cpuPercent(before, now *container.CPUStats) float64 {
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	passed := float64(now.SystemUsage) - float64(before.SystemUsage)
	if used <= 0 || passed <= 0 || before.SystemUsage == 0 {
		return 0
	}
	cpus := float64(now.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(now.CPUUsage.PercpuUsage))
	}
	return used / passed * cpus * 100
}

// usedMemory leaves out the file cache that the kernel gives up first, which cgroups of version 1 and 2 name differently.
func usedMemory(m *container.MemoryStats) uint64 {
	cache, ok := m.Stats["total_inactive_file"]
	if !ok {
		cache = m.Stats["inactive_file"]
	}
	if cache >= m.Usage {
		return m.Usage
	}
	return m.Usage - cache
}
