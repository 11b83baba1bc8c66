// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestNewStats(t *testing.T) {
	cpu := func(used, system uint64, cpus uint32) container.CPUStats {
		return container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: used}, SystemUsage: system, OnlineCPUs: cpus}
	}
	for name, c := range map[string]struct {
		in   container.StatsResponse
		want Stats
	}{
		"stopped": {},
		"one and a half of two processors": {
			in:   container.StatsResponse{PreCPUStats: cpu(100, 1000, 2), CPUStats: cpu(250, 1200, 2)},
			want: Stats{CPU: 150},
		},
		"first sample of a stream": {in: container.StatsResponse{CPUStats: cpu(250, 1200, 2)}},
		"counters that went back":  {in: container.StatsResponse{PreCPUStats: cpu(300, 1000, 2), CPUStats: cpu(250, 1200, 2)}},
		"cgroup 1": {
			in:   container.StatsResponse{MemoryStats: container.MemoryStats{Usage: 100, Limit: 400, Stats: map[string]uint64{"total_inactive_file": 30, "inactive_file": 1}}},
			want: Stats{Memory: 70, MemoryLimit: 400},
		},
		"cgroup 2": {
			in:   container.StatsResponse{MemoryStats: container.MemoryStats{Usage: 100, Limit: 400, Stats: map[string]uint64{"inactive_file": 40}}},
			want: Stats{Memory: 60, MemoryLimit: 400},
		},
		"all networks and devices": {
			in: container.StatsResponse{
				Networks:   map[string]container.NetworkStats{"a": {RxBytes: 1, TxBytes: 2}, "b": {RxBytes: 10, TxBytes: 20}},
				BlkioStats: container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{{Op: "Read", Value: 3}, {Op: "write", Value: 4}, {Op: "Total", Value: 7}}},
				PidsStats:  container.PidsStats{Current: 5},
			},
			want: Stats{Received: 11, Sent: 22, Read: 3, Written: 4, PIDs: 5},
		},
	} {
		if got := newStats(&c.in); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
