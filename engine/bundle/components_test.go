// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

func testPins() pins {
	return pins{
		Moby:         pin{Module: mobyModule, Version: "v2.1.0", Time: "2026-01-02T03:04:05Z"},
		Containerd:   pin{Module: containerdModule, Version: "v2.2.0"},
		Runc:         pin{Module: runcModule, Version: "v1.2.3"},
		Engine:       "30.0.0",
		InitRevision: "0123456789ab",
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from the golden file (go test -update rewrites it); got:\n%s", name, got)
	}
}

// Every command line of a build, natively and across.
func TestBuildCommands(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		tg, err := newTarget(arch, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, c := range components(testPins()) {
			cmd := buildCommand(c, tg, "out/"+c.Name)
			b.WriteString("# " + c.Name + "\n" + strings.Join(cmd.Env, "\n") + "\n" + strings.Join(cmd.Args, "\n") + "\n\n")
		}
		golden(t, "commands-"+arch+".golden", b.String())
	}
}

func TestNoProgramReportsLibraryImport(t *testing.T) {
	for _, c := range components(testPins()) {
		if c.Version == "" || c.License == "" {
			t.Errorf("%s: no version or licence", c.Name)
		}
		if c.Package != "" && len(c.Stamps) == 0 {
			t.Errorf("%s: no version is stamped", c.Name)
		}
		for name, value := range c.Stamps {
			if value == "" || strings.ContainsAny(value, " '\"") {
				t.Errorf("%s: stamp %s = %q", c.Name, name, value)
			}
		}
	}
}

// The tags of one component must not reach another through a shared slice.
func TestTagsAreNotShared(t *testing.T) {
	for _, c := range components(testPins()) {
		seen := map[string]bool{}
		for _, tag := range c.Tags {
			if seen[tag] {
				t.Errorf("%s: tag %q twice", c.Name, tag)
			}
			seen[tag] = true
		}
		if c.Name == "docker-proxy" && seen["no_cri"] {
			t.Error("docker-proxy is built with containerd's tags")
		}
	}
}

func TestNewTargetRefusesUnknownArchitecture(t *testing.T) {
	_, err := newTarget("mips", "amd64")
	if err == nil || !strings.Contains(err.Error(), `"mips"`) {
		t.Fatalf("got %v", err)
	}
}

func TestInstallHint(t *testing.T) {
	for host, want := range map[string]string{
		"arm64": "apt-get install gcc libc6-dev libseccomp-dev pkg-config",
		"amd64": "dpkg --add-architecture arm64 && apt-get update && apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross libseccomp-dev:arm64 pkg-config",
	} {
		tg, err := newTarget("arm64", host)
		if err != nil {
			t.Fatal(err)
		}
		if got := installHint(tg); got != want {
			t.Errorf("on %s: %s", host, got)
		}
	}
}
