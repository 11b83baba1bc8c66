// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseModules(t *testing.T) {
	ms, err := parseModules([]byte(`{"Path":"a","Version":"v1","Time":"T","Dir":"/m/a"}
{"Path":"b","Version":"v2","Replace":{"Path":"c","Dir":"/m/c","Time":"U"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(ms) != 2 || ms[0].Dir != "/m/a" || ms[0].Time != "T" || ms[1].Dir != "/m/c" || ms[1].Time != "U" {
		t.Errorf("got %+v", ms)
	}
	if _, err := parseModules([]byte(`{"Path":`)); err == nil {
		t.Error("a cut answer is taken")
	}
}

func TestEngineRelease(t *testing.T) {
	for text, want := range map[string]string{
		"---\ndocker:\n  last: \"29.8.0\"\n  next: \"29.8.1\"\n": "29.8.1",
		"docker: {last: \"1\"}\n":                                "",
		"\t":                                                     "",
	} {
		dir := t.TempDir()
		if err := writeFile(filepath.Join(dir, "releases", "versions.yaml"), []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := engineRelease(dir)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if _, err := engineRelease(t.TempDir()); err == nil {
		t.Error("no file, no error")
	}
}

// pins.go keeps the programs in go.mod; both have to name what components builds.
func TestPinsNameThePrograms(t *testing.T) {
	text, err := os.ReadFile("pins.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components(testPins()) {
		if c.Package != "" && !strings.Contains(string(text), `_ "`+c.Package+`"`) {
			t.Errorf("pins.go does not import %q", c.Package)
		}
	}
}

func TestLicenseNames(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "LICENSE.txt": true, "license.md": true, "COPYING": true, "NOTICE": true, "LICENCE-APACHE": true,
		"license.go": false, "README.md": false, "notes": false,
	} {
		if got := isLicense(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestModuleWithoutLicenseStopsTheBuild(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	if err := copyModuleLicense("example.com/none", dir, root); err == nil || !strings.Contains(err.Error(), "example.com/none") {
		t.Errorf("got %v", err)
	}
	if err := copyModuleLicense("github.com/moby/extensions", dir, root); err != nil {
		t.Error(err)
	}
}
