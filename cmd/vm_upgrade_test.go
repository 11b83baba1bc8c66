// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage"
)

// alteredImage makes an image of another in whose file something is replaced, and which calls its kernel by that name.
func alteredImage(t *testing.T, from, name, file string, alter func([]byte) []byte) string {
	t.Helper()
	manifest, err := vmimage.Verify(from)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	manifest.Kernel, manifest.Disk = name, nil
	for i, f := range manifest.Files {
		data, err := os.ReadFile(filepath.Join(from, f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == file {
			data = alter(data)
			sum := sha256.Sum256(data)
			manifest.Files[i] = vmimage.ImageFile{Name: f.Name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, vmimage.ManifestName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// imageWithoutKernel does not boot.
func imageWithoutKernel(t *testing.T, from string) string {
	t.Helper()
	return alteredImage(t, from, "broken", vmimage.KernelName, func(data []byte) []byte {
		return append([]byte("no kernel"), data[9:1024]...)
	})
}

// imageWithOtherName works as the one it is made of.
func imageWithOtherName(t *testing.T, from string) string {
	t.Helper()
	return alteredImage(t, from, "other", "", nil)
}

// withoutEngine spoils the beginning of the largest program in a root file system, which is the engine.
func withoutEngine(t *testing.T, root []byte) []byte {
	t.Helper()
	const block = 4096
	magic := []byte("\x7fELF\x02\x01\x01")
	largest, size, last := -1, 0, -1
	for at := 0; at <= len(root); at += block {
		if at+block < len(root) && !bytes.HasPrefix(root[at:], magic) {
			continue
		}
		if last >= 0 && at-last > size {
			largest, size = last, at-last
		}
		last = at
	}
	if largest < 0 || size < 20<<20 {
		t.Fatalf("the largest program has %d bytes: that is not the engine", size)
	}
	root[largest] = 0
	return root
}

// TestVMUpgradeEngine upgrades to an image that boots and whose engine does not start. The machine waits for it as long as it waits for any engine, and goes
// back. DEV_TEST_VM=all asks for it.
func TestVMUpgradeEngine(t *testing.T) {
	image := vmImage(t)
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("waits for an engine that does not come: set DEV_TEST_VM=all")
	}
	broken := alteredImage(t, image, "engineless", vmimage.RootName, func(data []byte) []byte { return withoutEngine(t, data) })
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	program := filepath.Join(home, "bin", "dev")
	build := exec.Command("go", "build", "-o", filepath.Dir(program)+string(filepath.Separator), "./dev", "./dev-hostagent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build dev: %v\n%s", err, out)
	}
	dev := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), "DEV_HOME="+filepath.Join(home, "h"), "DOCKER_CONFIG="+filepath.Join(home, "docker"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := dev(args...)
		if err != nil {
			t.Fatalf("dev %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	t.Cleanup(func() { must("machine", "rm", "-f", "box") })
	must("machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--no-share", "--docker-context", "no", "box")
	must("machine", "ssh", "box", "echo kept > /var/lib/kept && sync")
	out, err := dev("machine", "upgrade", "--image", broken, "box")
	if err == nil || !strings.Contains(out, "the machine has its old image back") || !strings.Contains(out, `stage "engine"`) {
		t.Errorf("upgrade: %v\n%s", err, out)
	}
	if out := must("machine", "ssh", "box", "cat /var/lib/kept"); !strings.Contains(out, "kept") {
		t.Errorf("the data disk has %q", out)
	}
	if out := must("machine", "status", "box"); !strings.Contains(out, "Running") {
		t.Errorf("afterwards: %s", out)
	}
}
