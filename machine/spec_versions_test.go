// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestSpecVersions: what each earlier dev wrote, in testdata/spec, is read, and written as it was: an older dev can go on with it.
func TestSpecVersions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are of other systems")
	}
	files, err := filepath.Glob(filepath.Join("testdata", "spec", "v*.yaml"))
	if err != nil || len(files) != SpecVersion {
		t.Fatalf("%d files for %d versions, %v", len(files), SpecVersion, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := ParseSpec(file, data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		again, err := encodeSpec(spec)
		if err != nil || string(again) != string(data) {
			t.Errorf("%s is written as\n%s%v", file, again, err)
		}
	}
}

// TestSpecNeedsVersion: a field that version 1 does not have makes it version 2, and taking it back makes it version 1 again.
func TestSpecNeedsVersion(t *testing.T) {
	spec := Spec{Driver: "qemu", Arch: "amd64", CPUs: 1, MemoryMiB: 512, DiskMiB: 512, Image: strings.Repeat("0", 64)}
	for want, oldest := range map[string]int{"version: 1\n": 0, "version: 2\n": 3} {
		spec.DataOldest = oldest
		if data, err := encodeSpec(spec); err != nil || !strings.HasPrefix(string(data), want) {
			t.Errorf("%d: %v\n%s", oldest, err, data)
		}
	}
}
