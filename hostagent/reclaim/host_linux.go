// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"os"
	"strconv"
	"strings"
)

// hostMemory is what this host has, and what of it can be had, in bytes.
func hostMemory() (available, total int64) {
	data, _ := os.ReadFile("/proc/meminfo") // without it nothing is known
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "MemTotal":
			total = n << 10
		case "MemAvailable":
			return n << 10, total
		}
	}
	return 0, 0
}
