// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"
)

var (
	at     = flag.String("dir", "", "folder whose file system to test, instead of that of temporary files")
	owners = flag.Bool("owners", true, "the file system keeps owners and permissions")
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
	passed, failed := map[string]int{}, map[string]int{}
	for i, c := range Cases() {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			if c.Owners && !*owners {
				t.Skip("this file system does not keep owners")
			}
			dir := filepath.Join(base, fmt.Sprintf("case%d", i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.Run(dir); err != nil {
				failed[c.Group]++
				t.Error(err)
			} else {
				passed[c.Group]++
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
	groups := make([]string, 0, len(passed))
	for g := range passed {
		groups = append(groups, g)
	}
	sort.Strings(groups)
	for _, g := range groups {
		t.Logf("| %s | %d of %d |", g, passed[g], passed[g]+failed[g])
	}
}
