// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/vmimage"
)

func TestAcceleratorFits(t *testing.T) {
	for _, c := range []struct {
		goos, goarch, accelerator, arch, want string
	}{
		{"linux", "amd64", "auto", "arm64", ""},
		{"linux", "amd64", "", "amd64", ""},
		{"linux", "amd64", "kvm", "amd64", ""},
		{"darwin", "arm64", "hvf", "arm64", ""},
		{"windows", "amd64", "tcg", "arm64", ""},
		{"linux", "amd64", "kvm", "arm64", "use tcg for arm64"},
		{"linux", "amd64", "hvf", "amd64", "does not exist on linux: use auto, kvm or tcg"},
		{"windows", "amd64", "kvm", "amd64", "use auto, whpx or tcg"},
	} {
		err := acceleratorFits(c.goos, c.goarch, machine.Spec{Accelerator: c.accelerator, Arch: c.arch})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestTinyGuests runs the test guests in emulation: they have to end there as they say.
func TestTinyGuests(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		program, err := exec.LookPath(programName(arch))
		if err != nil {
			t.Logf("%s: %v", arch, err)
			continue
		}
		if why := runProbe(t.Context(), program, host{OS: runtime.GOOS, Accelerator: "tcg"}, arch); why != "" && !strings.Contains(why, "hung") { // a machine under great load
			t.Errorf("%s: %s", arch, why)
		}
	}
}

// TestAutoIsProven: with an accelerator that does not work, auto ends in emulation, says so once, and remembers it for this boot.
func TestAutoIsProven(t *testing.T) {
	if bootID() == "" {
		t.Skip("this system does not tell its boots apart")
	}
	said := 0
	images := &vmimage.Store{Dir: t.TempDir()}
	state := t.TempDir()
	spec := machine.Spec{Arch: runtime.GOARCH, Accelerator: "auto"}
	for i := range 3 { // a new driver each time, as each command has
		d, ok := standIn(images, drivertest.StandInGood)(t).(*Driver)
		if !ok {
			t.Fatal("not this driver")
		}
		d.State, d.Say = state, func(text string) {
			said++
			if !strings.Contains(text, "does not work here") || !strings.Contains(text, "software emulation") {
				t.Errorf("said %q", text)
			}
		}
		got, err := d.accelerator(t.Context(), d.Program, spec)
		if err != nil || got != "tcg" {
			t.Fatalf("%d: accelerator is %q, %v", i, got, err)
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
	d := &Driver{Images: images, State: state, Logger: discard()}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec.Accelerator = native(runtime.GOOS)
	var failed *AcceleratorError
	if _, err := d.accelerator(t.Context(), program, spec); !errors.As(err, &failed) {
		t.Errorf("an accelerator that was asked for and does not work: %v", err)
	}
}

// TestProbe: an accelerator that is remembered to work, and does not, is found out, and can be forgotten.
func TestProbe(t *testing.T) {
	if bootID() == "" {
		t.Skip("this system does not tell its boots apart")
	}
	d, ok := standIn(&vmimage.Store{Dir: t.TempDir()}, drivertest.StandInGood)(t).(*Driver)
	if !ok {
		t.Fatal("not this driver")
	}
	d.State = t.TempDir()
	spec := machine.Spec{Arch: runtime.GOARCH}
	if p, err := d.Probe(t.Context(), spec); err != nil || p.Why == "" || p.Forget != nil {
		t.Errorf("nothing is remembered: %+v, %v", p, err)
	}
	known := ask(d.Program, native(runtime.GOOS), runtime.GOARCH)
	known.Works = true
	d.remember(known)
	p, err := d.Probe(t.Context(), spec)
	if err != nil || p.Why == "" || p.Forget == nil {
		t.Fatalf("it is remembered to work: %+v, %v", p, err)
	}
	if err := p.Forget(); err != nil {
		t.Fatal(err)
	}
	if p, err = d.Probe(t.Context(), spec); err != nil || p.Forget != nil {
		t.Errorf("it was forgotten: %+v, %v", p, err)
	}
	spec.Accelerator = "tcg"
	if p, err = d.Probe(t.Context(), spec); err != nil || p.Why != "" {
		t.Errorf("nobody wants it: %+v, %v", p, err)
	}
}

// TestProofEnds: an answer of another boot, another QEMU or a damaged file is none.
func TestProofEnds(t *testing.T) {
	d := &Driver{State: t.TempDir(), Logger: discard()}
	known := proof{Boot: "b", Program: "/qemu", Accelerator: "kvm", Arch: "amd64", Works: true}
	d.remember(known)
	if _, ok := d.recall(known); !ok {
		t.Fatal("forgotten at once")
	}
	for name, q := range map[string]proof{
		"boot":    {Boot: "c", Program: "/qemu", Accelerator: "kvm", Arch: "amd64"},
		"program": {Boot: "b", Program: "/other", Accelerator: "kvm", Arch: "amd64"},
		"arch":    {Boot: "b", Program: "/qemu", Accelerator: "kvm", Arch: "arm64"},
		"no boot": {Program: "/qemu", Accelerator: "kvm", Arch: "amd64"},
	} {
		if _, ok := d.recall(q); ok {
			t.Errorf("another %s is answered", name)
		}
	}
	if err := os.WriteFile(filepath.Join(d.State, "accelerator.json"), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.recall(known); ok {
		t.Error("a damaged file is believed")
	}
	d.remember(known)
	if _, ok := d.recall(known); !ok {
		t.Error("a damaged file is not replaced")
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	images := &vmimage.Store{Dir: t.TempDir()}
	var old *OldError
	if err := standIn(images, drivertest.StandInOld)(t).Check(t.Context(), machine.Spec{Arch: "amd64", Accelerator: "tcg"}); !errors.As(err, &old) || old.Version != "6.2" {
		t.Errorf("old QEMU: %v", err)
	}
	var missing *MissingError
	d := &Driver{Images: images, Logger: discard(), Program: filepath.Join(t.TempDir(), "qemu-system-aarch64")}
	if err := d.Check(t.Context(), machine.Spec{Arch: "arm64"}); !errors.As(err, &missing) {
		t.Errorf("no QEMU: %v", err)
	}
	for goos, want := range map[string]string{"linux": "apt-get install qemu-system-arm", "darwin": "brew install qemu", "windows": "winget install"} {
		if hint := (&MissingError{Program: "qemu-system-aarch64", OS: goos}).Hint(); !strings.Contains(hint, want) {
			t.Errorf("hint on %s: %q", goos, hint)
		}
	}
}
