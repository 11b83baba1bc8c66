// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package shellenv

// Detect finds the shell that the user types in by what it leaves in the environment.
func Detect(getenv func(string) string) Shell {
	if getenv("__fish_bin_dir") != "" {
		return Fish
	}
	return Parse(getenv("SHELL"))
}
