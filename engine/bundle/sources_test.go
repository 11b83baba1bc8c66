// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const editPatch = `why this is

diff --git a/p/x.go b/p/x.go
--- a/p/x.go
+++ b/p/x.go
@@ -1,3 +1,3 @@
 one
-two
+2
 three
diff --git a/p/new.go b/p/new.go
new file mode 100644
--- /dev/null
+++ b/p/new.go
@@ -0,0 +1 @@
+new
`

func TestApplyPatch(t *testing.T) {
	dir := t.TempDir()
	patch, file := filepath.Join(dir, "1.patch"), filepath.Join(dir, "p", "x.go")
	overwrite(t, patch, editPatch)
	if err := writeFile(file, []byte("one\ntwo\nthree\n")); err != nil {
		t.Fatal(err)
	}
	if err := applyPatch(patch, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"x.go": "one\n2\nthree\n", "new.go": "new\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, "p", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if err := applyPatch(patch, dir); err == nil {
		t.Error("applied twice")
	}
}

func TestApplyPatchRefuses(t *testing.T) {
	for name, patch := range map[string]string{
		"nothing":       "only words\n",
		"other context": strings.ReplaceAll(editPatch, " one", " uno"),
		"missing file":  strings.ReplaceAll(editPatch, "p/x.go", "p/y.go"),
		"outside":       strings.ReplaceAll(editPatch, "p/new.go", "../new.go"),
		"removal":       "diff --git a/p/x.go b/p/x.go\ndeleted file mode 100644\n--- a/p/x.go\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-one\n-two\n-three\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			overwrite(t, filepath.Join(dir, "1.patch"), patch)
			if err := writeFile(filepath.Join(dir, "p", "x.go"), []byte("one\ntwo\nthree\n")); err != nil {
				t.Fatal(err)
			}
			if err := applyPatch(filepath.Join(dir, "1.patch"), dir); err == nil {
				t.Error("applied")
			}
			if _, err := os.Stat(filepath.Join(dir, "..", "new.go")); err == nil {
				t.Error("wrote outside")
			}
		})
	}
}

// Every patch says why it is there and where upstream stands.
func TestPatchesAreExplained(t *testing.T) {
	patches, err := filepath.Glob(filepath.Join("patches", "*.patch"))
	if err != nil || len(patches) == 0 {
		t.Fatalf("found %v, %v", patches, err)
	}
	for _, p := range patches {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(data), "\ndiff --git ")
		for _, want := range []string{"\nWhy: ", "\nUpstream: "} {
			if !strings.Contains(head, want) {
				t.Errorf("%s: no %q", p, strings.TrimSpace(want))
			}
		}
	}
}

// The real patches fit the pinned sources. Needs the modules, so only where they
// have been downloaded.
func TestPatchesApply(t *testing.T) {
	if testing.Short() {
		t.Skip("copies 120 MB of sources")
	}
	if !haveModules(t) {
		t.Skip("the engine's modules are not in the module cache; `make engine` downloads them")
	}
	if err := prepareSources(t.Context(), ".", t.TempDir()); err != nil {
		t.Fatal(err)
	}
}

// haveModules tells whether the pinned modules can be read without a network.
func haveModules(t *testing.T) bool {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", "pins", ".")
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off")
	return cmd.Run() == nil
}
