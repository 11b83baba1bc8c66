// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// replaceProcess runs a program in the place of this one, so that signals and the terminal are its own. It returns only on failure.
func replaceProcess(path string, args, env []string) error {
	if err := syscall.Exec(path, args, lastWins(env)); err != nil {
		return fmt.Errorf("run %q: %w", args[0], err)
	}
	return nil
}

// lastWins leaves out variables that are set again later: programs disagree on which one counts.
func lastWins(env []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, kv := range slices.Backward(env) {
		name, _, _ := strings.Cut(kv, "=")
		if !seen[name] {
			out = append(out, kv)
		}
		seen[name] = true
	}
	slices.Reverse(out)
	return out
}
