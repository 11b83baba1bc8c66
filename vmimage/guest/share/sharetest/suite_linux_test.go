// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var (
	at     = flag.String("dir", "", "folder whose file system to test, instead of that of temporary files")
	owners = flag.Bool("owners", true, "the file system keeps owners and permissions")

	results = flag.String("results", "", "write what held to this file, for the table in docs/shares.md")
	way     = flag.String("way", "disk", "what the folder is: disk, fuse, fuse-vm or virtiofs-vm")
	how     = flag.String("how", "", "how it was run, for who reads the results")
)

// TestCases holds for any disk of Linux's; with -dir it says what holds for another file system.
func TestCases(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the cases are about what root and others may do: run as root")
	}
	base := *at
	if base == "" {
		base = t.TempDir()
		for dir := base; dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o777); err != nil { // others than root get there, too
				t.Fatal(err)
			}
			if filepath.Dir(dir) == os.TempDir() {
				break
			}
		}
	}
	cases := append(Cases(), Programs(ScaleOf(os.Getenv("DEV_TEST_SHARES")))...)
	var all []Outcome
	for i, c := range cases {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			if c.Owners && !*owners {
				t.Skip("this file system does not keep owners")
			}
			o := c.Try(filepath.Join(base, fmt.Sprintf("case%d", i)))
			all = append(all, o)
			o.Tell(t)
		})
	}
	if *results != "" {
		if err := Record(*results, *way, *how, all); err != nil {
			t.Error(err)
		}
	}
}
