// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"os"
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
	runCases(t, p.target, func(sharetest.Case) string { return "" })
}

// TestCasesUnwatched runs them where nothing tells of the host's changes.
func TestCasesUnwatched(t *testing.T) {
	p := mounted(t, func(h *host.Options, _ *share.Options) { h.Watcher = nil })
	open(t, p.target)
	runCases(t, p.target, func(sharetest.Case) string { return "" })
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

func runCases(t *testing.T, base string, skip func(sharetest.Case) string) {
	t.Helper()
	for i, c := range sharetest.Cases() {
		t.Run(c.Group+"/"+c.Name, func(t *testing.T) {
			if reason := skip(c); reason != "" {
				t.Skip(reason)
			}
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
