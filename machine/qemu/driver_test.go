// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/vmimage"
)

func TestMain(m *testing.M) {
	drivertest.StandIn()
	os.Exit(m.Run())
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// standIn is a driver whose QEMU is this test binary, behaving as told.
func standIn(images *vmimage.Store, how string) func(t *testing.T) machine.Driver {
	return func(t *testing.T) machine.Driver {
		t.Helper()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(drivertest.StandInVariable, how)
		return &Driver{Images: images, State: t.TempDir(), Logger: discard(), Program: program}
	}
}

func TestConformance(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("sockets of test binaries are not served on all of Windows' versions")
	}
	images := &vmimage.Store{Dir: t.TempDir()}
	digest := drivertest.Image(t, images, "amd64", "stand-in")
	drivertest.Run(t, drivertest.Subject{
		Driver:  standIn(images, drivertest.StandInGood),
		Spec:    machine.Spec{Version: 1, Driver: Name, Arch: "amd64", Accelerator: "tcg", CPUs: 2, MemoryMiB: 512, DiskMiB: 512, Image: digest},
		Hung:    standIn(images, drivertest.StandInHung),
		Keeping: standIn(images, drivertest.StandInKeeps), Losing: standIn(images, drivertest.StandInLoses),
		Staying: standIn(images, drivertest.StandInStays), Crashing: standIn(images, drivertest.StandInFaults),
		Failing: map[string]func(t *testing.T) machine.Driver{
			"with a complaint": standIn(images, drivertest.StandInFails),
			"without a word":   standIn(images, drivertest.StandInQuits),
			"program not there": func(*testing.T) machine.Driver {
				return &Driver{Images: images, Logger: discard(), Program: "/no/such/qemu"}
			},
		},
	})
}

// TestConformanceReal runs the suite with the real QEMU in emulation: DEV_TEST_VM=1, and DEV_TEST_VM_IMAGE with built images.
func TestConformanceReal(t *testing.T) {
	arch := os.Getenv("DEV_TEST_VM_ARCH")
	if arch == "" {
		arch = "amd64"
	}
	images, digest := realImage(t, arch)
	drivertest.Run(t, drivertest.Subject{
		Driver: func(t *testing.T) machine.Driver {
			return &Driver{Images: images, State: t.TempDir(), Logger: discard()}
		},
		Spec:     machine.Spec{Version: 1, Driver: Name, Arch: arch, Accelerator: "tcg", CPUs: 2, MemoryMiB: 1024, DiskMiB: 1024, Image: digest},
		Furnish:  writeTestSeed,
		Patience: 10 * time.Minute,
		Settled:  awaitConsole("dockerd ready"),
	})
}

// awaitConsole waits until the guest has said something.
func awaitConsole(text string) func(*testing.T, hostagent.Link) {
	return func(t *testing.T, link hostagent.Link) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
			data, err := os.ReadFile(link.Console)
			if strings.Contains(string(data), text) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the console never said %q (%v):\n%s", text, err, data)
			}
		}
	}
}

// realImage copies the built image into a store, or skips the test.
func realImage(t *testing.T, arch string) (*vmimage.Store, string) {
	t.Helper()
	from := os.Getenv("DEV_TEST_VM_IMAGE")
	if os.Getenv("DEV_TEST_VM") == "" || from == "" {
		t.Skip("boots machines under QEMU: set DEV_TEST_VM=1 and DEV_TEST_VM_IMAGE to a folder of built images")
	}
	if _, err := exec.LookPath(programName(arch)); err != nil {
		t.Skipf("needs QEMU: %v", err)
	}
	images := &vmimage.Store{Dir: t.TempDir()}
	dir, err := images.Workspace()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(dir), os.CopyFS(dir, os.DirFS(filepath.Join(from, arch)))); err != nil {
		t.Fatal(err)
	}
	image, err := images.Add(t.Context(), dir, "real")
	if err != nil {
		t.Fatal(err)
	}
	return images, image.Digest
}

var _ drivertest.Orphan = (*vm)(nil)

// Abandon plays the death of the process that started the VM: its connection to the monitor goes.
func (v *vm) Abandon() { v.monitor.close() }

var _ hostagent.VM = (*vm)(nil)
