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

// TestCases runs all cases on a share whose host keeps owners, as one that root serves does.
func TestCases(t *testing.T) {
	p := mounted(t, nil)
	open(t, p.target)
	runCases(t, p.target)
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
func runCases(t *testing.T, folder string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCasesInFolder$", "-test.v", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), casesFolder+"="+folder)
	out, err := cmd.CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--- PASS: TestCasesInFolder/")) {
		err = errors.New("no case was run")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCasesInFolder is the child's part.
func TestCasesInFolder(t *testing.T) {
	base := os.Getenv(casesFolder)
	if base == "" {
		t.Skip("it is run by TestCases, in a share")
	}
	for i, c := range sharetest.Cases() {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			dir := filepath.Join(base, "case"+strconv.Itoa(i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.Run(dir); err != nil {
				t.Error(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
	}
}
