// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestSourceFiles(t *testing.T) {
	got, err := sourceFiles(fstest.MapFS{
		"go.mod": {}, "go.sum": {}, "main.go": {}, "main_test.go": {},
		"init/init.c": {}, "patches/0001-x.patch": {}, "testdata/commands.golden": {},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"go.mod", "go.sum", "init/init.c", "main.go", "patches/0001-x.patch"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A bundle counts as made only while inputs, manifest and archive agree.
func TestUpToDate(t *testing.T) {
	const in = "arch amd64\ngo go1.26.8\n"
	damage := map[string]func(t *testing.T, o outputs){
		"other inputs":     func(t *testing.T, o outputs) { overwrite(t, o.Inputs, in+"go.mod 12\n") },
		"no inputs":        func(t *testing.T, o outputs) { remove(t, o.Inputs) },
		"no archive":       func(t *testing.T, o outputs) { remove(t, o.Archive) },
		"cut archive":      func(t *testing.T, o outputs) { overwrite(t, o.Archive, "x") },
		"no manifest":      func(t *testing.T, o outputs) { remove(t, o.Manifest) },
		"garbled manifest": func(t *testing.T, o outputs) { overwrite(t, o.Manifest, "{") },
	}
	made := func(t *testing.T) outputs {
		out := outputsIn(t.TempDir(), "amd64")
		root := testTree(t)
		if _, err := finish(testPins(), target{Arch: "amd64"}, root, out, in); err != nil {
			t.Fatal(err)
		}
		if !upToDate(out, in) {
			t.Fatal("a fresh bundle is not up to date")
		}
		return out
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			out := made(t)
			spoil(t, out)
			if upToDate(out, in) {
				t.Error("still counts as up to date")
			}
		})
	}
}

func TestReplaceFileKeepsTheOldOnFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	overwrite(t, path, "old")
	err := replaceFile(path, func(w io.Writer) error {
		if _, err := w.Write([]byte("half of the n")); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "old" {
		t.Errorf("the file is %q", data)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestBaseEnvDropsWhatChangesBuilds(t *testing.T) {
	got := baseEnv([]string{"PATH=/bin", "GOFLAGS=-mod=mod", "CGO_CFLAGS=-g", "GOAMD64=v3", "GOEXPERIMENT=x", "HOME=/h", "LANG=de_DE"})
	want := []string{"LC_ALL=C", "PATH=/bin", "HOME=/h"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
