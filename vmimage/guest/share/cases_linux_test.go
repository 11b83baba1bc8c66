// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	host "github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/share"
	"github.com/seed71221737/dev/vmimage/guest/share/sharetest"
)

// TestCases runs all cases and programs on a share whose host keeps owners, as one that root serves does, with the host's file events.
func TestCases(t *testing.T) {
	p := followed(t, nil)
	open(t, p.target)
	runCases(t, p.target, programsToo+"=1")
}

// TestCasesUnwatched runs them where nothing tells of the host's changes.
func TestCasesUnwatched(t *testing.T) {
	p := mounted(t, func(h *host.Options, _ *share.Options) { h.Watcher = nil })
	open(t, p.target)
	runCases(t, p.target)
}

// open lets others than root get to a folder.
func open(t *testing.T, dir string) {
	t.Helper()
	for dir = filepath.Dir(dir); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// casesFolder names the folder in which a child of the test is to run the cases.
const casesFolder = "DEV_TEST_CASES_FOLDER"

// runCases runs the cases in a process of its own: one that both serves a share and waits for it where the runtime does not know, in a page fault say, hangs as
// soon as garbage is collected, and cannot even be killed.
func runCases(t *testing.T, folder string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCasesInFolder$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(append(os.Environ(), casesFolder+"="+folder), env...)
	out, err := cmd.CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--- PASS: TestCasesInFolder/")) {
		err = errors.New("no case was run")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%d passed, %d skipped", bytes.Count(out, []byte("--- PASS: TestCasesInFolder/")), bytes.Count(out, []byte("--- SKIP: TestCasesInFolder/")))
}

// recordFile names a file to write the results to, for the table in docs/shares.md.
const recordFile = "DEV_TEST_SHARES_RECORD"

// programsToo: real programs are let loose on the folder, too.
const programsToo = "DEV_TEST_CASES_PROGRAMS"

// TestCasesInFolder is the child's part.
func TestCasesInFolder(t *testing.T) {
	base := os.Getenv(casesFolder)
	if base == "" {
		t.Skip("it is run by TestCases, in a share")
	}
	cases := sharetest.Cases()
	if os.Getenv(programsToo) != "" {
		cases = append(cases, sharetest.Programs(sharetest.ScaleOf(os.Getenv("DEV_TEST_SHARES")))...)
	}
	var all []sharetest.Outcome
	for i, c := range cases {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			o := c.Try(filepath.Join(base, "case"+strconv.Itoa(i)))
			all = append(all, o)
			o.Tell(t)
		})
	}
	if file := os.Getenv(recordFile); file != "" && os.Getenv(programsToo) != "" {
		if err := sharetest.Record(file, "fuse", "", all); err != nil {
			t.Error(err)
		}
	}
}
