// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"slices"
	"strings"
)

// nearest is the one of names that word was most likely meant to be, or "" if none is near: at most a third of it may differ.
func nearest(word string, names []string) string {
	best, limit := "", max(1, len(word)/3)+1
	for _, name := range names {
		d := distance(strings.ToLower(word), strings.ToLower(name))
		if strings.HasPrefix(name, word) && len(word) >= 3 {
			d = min(d, 1)
		}
		if d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their neighbour to turn a into b.
func distance(a, b string) int {
	var before, last []int
	for i := range len(a) + 1 {
		row := make([]int, len(b)+1)
		for j := range row {
			switch {
			case i == 0 || j == 0:
				row[j] = i + j
			default:
				cost := 1
				if a[i-1] == b[j-1] {
					cost = 0
				}
				row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					row[j] = min(row[j], before[j-2]+1)
				}
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// noSuchService is the error for a service that the project does not have; services are those that it has.
func noSuchService(name string, services []string) error {
	err := fmt.Errorf("no such service: %q", name)
	if near := nearest(name, services); near != "" {
		return withHint(err, "did you mean %q?", near)
	}
	if len(services) == 0 {
		return withHint(err, "the project has no services")
	}
	services = slices.Sorted(slices.Values(services))
	const most = 12
	if more := len(services) - most; more > 0 {
		services = append(services[:most:most], fmt.Sprintf("… and %d more", more))
	}
	return withHint(err, "the project's services: %s", strings.Join(services, ", "))
}
