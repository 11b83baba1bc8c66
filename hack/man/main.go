// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Command man writes the manual pages of dev, one for each command, for packages of it. It is a program of its own because what makes them would
// only be weight in dev itself.
//
// Usage: go run ./hack/man DIR
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/seed71221737/dev/cmd"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := cmd.Command()
	dropAlias(root)
	// No date: the same sources give the same pages.
	epoch := time.Unix(0, 0).UTC()
	return doc.GenManTree(root, &doc.GenManHeader{Title: "DEV", Section: "1", Source: "dev " + cmd.Version, Manual: "dev", Date: &epoch}, dir)
}

// dropAlias leaves out dev compose: its pages would say what those of dev say.
func dropAlias(root *cobra.Command) {
	root.DisableAutoGenTag = true
	for _, c := range root.Commands() {
		if c.Name() == "compose" {
			root.RemoveCommand(c)
		}
	}
}
