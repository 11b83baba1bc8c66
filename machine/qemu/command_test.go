// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestCommandLine compares the command lines of every host and guest with testdata/*.golden, one argument a line.
func TestCommandLine(t *testing.T) {
	hosts := map[string]host{
		"linux-kvm": {"linux", "kvm"}, "linux-tcg": {"linux", "tcg"},
		"darwin-hvf": {"darwin", "hvf"}, "darwin-tcg": {"darwin", "tcg"},
		"windows-whpx": {"windows", "whpx"}, "windows-tcg": {"windows", "tcg"},
	}
	for name, h := range hosts {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(name+"-"+arch, func(t *testing.T) {
				golden(t, name+"-"+arch, commandLine(h, testImage, testDir, testSpec(arch), testLink()))
			})
		}
	}
	shared := testLink()
	shared.Shares = []hostagent.ShareLink{{Tag: "share0", Socket: "/home/a user/.dev/machines/one, two/virtiofs-0.sock"}}
	spec := func(arch string) machine.Spec {
		s := testSpec(arch)
		s.Shares = []machine.Share{{Host: "/home/a user", Type: hostagent.ShareVirtiofs}}
		return s
	}
	golden(t, "shares-linux", commandLine(host{"linux", "tcg"}, testImage, testDir, spec("amd64"), shared))
	golden(t, "shares-darwin", commandLine(host{"darwin", "hvf"}, testImage, testDir, spec("arm64"), shared))
	maintenance := testLink()
	maintenance.Network, maintenance.Data = "", "/home/a user/.dev/machines/one, two/data.img.part"
	maintenance.Disks = []hostagent.Disk{{Name: "report", File: "/home/a user/.dev/machines/one, two/report.img"}, {Name: "original", File: testDir.DataDisk(), Discard: true}}
	golden(t, "maintenance-linux", commandLine(host{"linux", "tcg"}, testImage, testDir, testSpec("amd64"), maintenance))
	restored := testLink()
	restored.State = "/home/a user/.dev/machines/one, two/memory/state"
	golden(t, "restored-linux", commandLine(host{"linux", "kvm"}, testImage, testDir, testSpec("amd64"), restored))
	golden(t, "restored-windows", commandLine(host{"windows", "tcg"}, testImage, testDir, testSpec("amd64"), restored))
}

const testDir = machine.Dir("/home/a user/.dev/machines/one, two")

var testImage = image{Dir: "/home/a user/.dev/machine-images/images/0123", RootUUID: "01234567-89ab-cdef-0123-456789abcdef"}

func testSpec(arch string) machine.Spec {
	return machine.Spec{Version: 1, Driver: Name, Arch: arch, CPUs: 4, MemoryMiB: 4096, DiskMiB: 65536}
}

func testLink() hostagent.Link {
	return hostagent.Link{
		Network: "/home/a user/.dev/machines/one, two/net.sock", MAC: "52:54:00:01:02:03",
		Seed: "/home/a user/.dev/machines/one, two/seed.img", Console: "/home/a user/.dev/machines/one, two/console.log",
	}
}

func golden(t *testing.T, name string, args []string) {
	t.Helper()
	// Folders are joined with the separator of the system that the test runs on.
	got := filepath.ToSlash(strings.Join(args, "\n")) + "\n"
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("command line differs from %s:\n%s", file, got)
	}
}

// TestCommandLineAgrees checks what must hold of every command line, whatever the golden files say.
func TestCommandLineAgrees(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		args := commandLine(host{"linux", "tcg"}, testImage, testDir, testSpec(arch), testLink())
		if !slices.Contains(args, monitorDevice(testDir)) {
			t.Error("the monitor's socket, by which a machine's QEMU is found, is missing")
		}
		writable := 0
		for _, a := range args {
			if strings.HasPrefix(a, "if=none") && strings.Contains(a, "readonly=off") {
				writable++
				if !strings.Contains(a, "data.img") {
					t.Errorf("a disk that is not the machine's own can be written to: %q", a)
				}
			}
		}
		if writable != 1 {
			t.Errorf("%d disks can be written to", writable)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string][2]int{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)": {7, 2},
		"QEMU emulator version 10.1.0":                                   {10, 1},
		"QEMU emulator version 9.2.0-rc1 (v9.2.0-rc1-dirty)":             {9, 2},
	} {
		if got, ok := parseVersion(text); !ok || got != want {
			t.Errorf("parseVersion(%q) = %v, %v; want %v", text, got, ok, want)
		}
	}
	if _, ok := parseVersion("something else 7.2"); ok {
		t.Error("a version was found where there is none")
	}
}
