// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const document = "../../docs/reliability.md"

// TestReliability: docs/reliability.md is the table, and each test that it names is there. UPDATE=1 writes it.
func TestReliability(t *testing.T) {
	for _, f := range table() {
		if f.Group == "" || f.What == "" || f.How == "" || f.Promise == "" || len(f.Tests) == 0 && f.produce == nil || (f.Name == "") != (f.produce == nil) {
			t.Errorf("a row that says too little: %+v", f)
		}
		for _, name := range f.Tests {
			if !isTest(t, name) {
				t.Errorf("there is no test %s", name)
			}
		}
	}
	results := readResults(t)
	for name := range results {
		if !slices.ContainsFunc(table(), func(f fault) bool { return f.Name == name }) {
			t.Errorf("%s is of a fault %q, which is none", resultsFile, name)
		}
	}
	want := render(table(), results)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(document); err != nil || string(have) != want {
		t.Errorf("docs/reliability.md is not what the table says; write it with UPDATE=1 go test ./machine/faults -run TestReliability: %v", err)
	}
}

// isTest says whether a test is in the tree; its name is folder.TestName.
func isTest(t *testing.T, name string) bool {
	t.Helper()
	folder, function, ok := strings.Cut(name, ".")
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(folder), "*_test.go"))
	if !ok || err != nil {
		t.Fatalf("%q is no name of a test: %v", name, err)
	}
	is := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(function) + `\(`)
	return slices.ContainsFunc(files, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && is.Match(data)
	})
}

// render writes the document.
func render(list []fault, results map[string]result) string {
	var b strings.Builder
	b.WriteString(heading)
	var groups []string
	for _, f := range list {
		if !slices.Contains(groups, f.Group) {
			groups = append(groups, f.Group)
		}
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| fault | how it is produced | what holds afterwards | tests | real machine, last |\n|---|---|---|---|---|\n", g)
		for _, f := range list {
			if f.Group == g {
				last := "–"
				if f.Name != "" {
					last = results[f.Name].String()
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.What, f.How, f.Promise, strings.Join(testsOf(f), ", "), last)
			}
		}
	}
	b.WriteString(ending)
	return b.String()
}

// testsOf are a fault's tests as they are typed after go test -run.
func testsOf(f fault) []string {
	var names []string
	if f.Name != "" {
		name := "**TestVMFaults/" + f.Name + "**"
		if f.Slow {
			name += " (all)"
		}
		names = append(names, name)
	}
	for _, t := range f.Tests {
		folder, function, _ := strings.Cut(t, ".")
		names = append(names, fmt.Sprintf("[%s](../%s)", function, folder))
	}
	return names
}

const heading = `<!-- Written by a test from machine/faults/table_linux_test.go. Do not edit: UPDATE=1 go test ./machine/faults -run TestReliability -->
# Reliability

What dev's machines promise when something breaks, and the test that breaks it. After every fault three things hold: **the next command works, nothing that was
written to disk is lost, and nothing stays that nobody owns: no process, mount, held lock,
socket, temporary file or half image**. What a program had in memory, or had not synced, is lost as on any computer.

Tests in bold do it to a real virtual machine, with the program as users have it, and look into a volume of it afterwards. They run in CI with
` + "`DEV_TEST_VM=1`" + `; those marked (all) take minutes each under emulation, and run with ` + "`DEV_TEST_VM=all go test ./machine/faults -timeout 3h`" + `. The others
break real processes, sockets, file systems and network stacks, with a stand-in for the guest, many more times and at more moments than a machine that boots could be.
The last column says when a fault was last made to happen to a real machine, how long that took under emulation, and on which commit (` + "`UPDATE=1`" + ` notes it).
`

const ending = `
## What no test makes happen

These cannot be produced here. They are built for, and tested with stand-ins where that says something:

- **The real sleep of a laptop**, hibernation, and a battery that runs out: tests stop the processor's clock as seen by the guest, and set clocks; none closes a lid.
- **The host's clock**: a test must not set it. The guest's is set for real; for the host's, the agent is built with a clock that the test sets (host-clock), so that what
  the kernel tells of a step is not in it: then the guest follows at once, here within ten seconds.
- **A power cut of the host**: the disk is copied while the guest writes, which leaves what the guest had sent to QEMU. What the host's own file system loses at
  a power cut depends on that file system; dev syncs what it writes, and QEMU passes the guest's syncs on.
- **Broken hardware**: memory and disks that lie. Saved memory, snapshots and images have checksums; the data disk has what its file system has.
- **macOS and Windows**: Hypervisor.framework, WHPX, launchd, the Task Scheduler, reserved port ranges and VPN clients. The code for them is compiled and its pure
  parts are tested; nobody has broken a machine there on purpose yet.
- **Other hypervisors** taking the processor's virtualization away while a machine runs.
`
