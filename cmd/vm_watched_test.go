// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watchedPatience is how long a change may take to show. The machine believes what it knows for a day unless it is told.
const watchedPatience = 2 * time.Minute

// TestVMWatched changes files on the host that a machine has read through virtiofs, in all ways, and has it see that.
func TestVMWatched(t *testing.T) {
	image := vmImage(t)
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("takes minutes under emulation: set DEV_TEST_VM=all")
	}
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	program, host := filepath.Join(home, "bin", "dev"), filepath.Join(home, "src")
	run := func(name string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), vmPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "DEV_HOME="+filepath.Join(home, "h"), "DOCKER_CONFIG="+filepath.Join(home, "docker"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := run(name, args...); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	must("go", "build", "-o", filepath.Dir(program)+string(filepath.Separator), "./dev", "./dev-hostagent", "./dev-build")
	at := func(name string) string { return filepath.Join(host, name) }
	write := func(name, text string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(text), 0o644))
	}
	if err := errors.Join(write("d/f", "old"), write("d/sub/g", "g"), write("top", "top"), write("many/f", "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(program, "machine", "rm", "-f", "box") })
	must(program, "machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", "--sleep-after", "never",
		"--share", host+",type=virtiofs,cache=watched", "box")
	inside := func(script string) (string, error) {
		return run(program, "machine", "ssh", "box", "cd "+host+" && "+script)
	}
	for _, c := range []struct {
		name   string
		change func() error
		shows  string // in the machine, once it has learned of the change
	}{
		{"create", func() error { return write("d/new", "new") }, "grep -q new d/new && ls d | grep -q new"},
		{"remove", func() error { return os.Remove(at("d/new")) }, "! test -e d/new && ! ls d | grep -q new"},
		{"replace", func() error { return errors.Join(write("d/tmp", "replaced"), os.Rename(at("d/tmp"), at("d/f"))) }, "grep -q replaced d/f"},
		{"overwrite with the same size", func() error { return write("d/f", "REPLACED") }, "grep -q REPLACED d/f"},
		{"append", func() error { return write("d/f", "REPLACED and more") }, "grep -q more d/f"},
		{"attributes", func() error { return os.Chmod(at("d/f"), 0o600) }, `test "$(stat -c %a d/f)" = 600`},
		{"a tree", func() error { return write("d/x/y/z/f", "deep") }, "grep -q deep d/x/y/z/f"},
		{"rename a folder", func() error { return os.Rename(at("d"), at("e")) }, "grep -q g e/sub/g && ! test -e d"},
		{"in what was renamed", func() error { return write("e/sub/g", "other") }, "grep -q other e/sub/g"},
		{"remove a folder", func() error { return os.RemoveAll(at("e/x")) }, "! test -e e/x && ! ls e | grep -q x"},
		{"a folder becomes a file", func() error { return errors.Join(os.RemoveAll(at("e/sub")), write("e/sub", "file")) }, "grep -q file e/sub"},
		{"a storm", func() error {
			for i := range 5000 {
				if err := write(fmt.Sprintf("many/%d", i), ""); err != nil {
					return err
				}
			}
			return errors.Join(os.Remove(at("many/f")), write("top", "after the storm"))
		}, `test "$(ls many | wc -l)" = 5000 && grep -q storm top`},
		{"while the machine is away", func() error {
			must(program, "machine", "suspend", "box")
			err := write("top", "changed in its sleep")
			must(program, "machine", "resume", "box")
			return err
		}, "grep -q sleep top"},
	} {
		if out, err := inside("for i in 1 2; do find . | xargs ls -ld; cat top d/* e/*; done >/dev/null 2>&1; true"); err != nil {
			t.Fatalf("%s: read all: %v\n%s", c.name, err, out)
		}
		if err := c.change(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		out, err := "", errors.New("not asked")
		for end := time.Now().Add(watchedPatience); err != nil && time.Now().Before(end); {
			out, err = inside(c.shows)
		}
		if err != nil {
			t.Errorf("%s does not show in the machine: %v\n%s", c.name, err, out)
		}
	}
	if out, err := inside("for i in 1 2 3 4 5 6 7 8; do echo $i >own$i && mv own$i its$i; done; ls | grep -c its"); err != nil || strings.TrimSpace(out) != "8" {
		t.Errorf("its own changes: %v\n%s", err, out)
	}
}
