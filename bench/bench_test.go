// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package bench_test measures dev beside docker compose, and beside the engine's own limit, on one engine in one run.
//
// Times are taken in interleaved pairs and reported as medians and ratios: on a shared machine an absolute time means little. `make bench`
// builds what it compares and runs it with -measure; without that flag only what does not depend on time is tested.
package bench_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/enginetest"
)

var (
	measure = flag.Bool("measure", false, "take times; without it only what does not depend on time is tested")
	pairs   = flag.Int("pairs", 5, "how many pairs of each measurement")
	looks   = flag.Bool("looks", false, "take only the times of what changes nothing")
	program = flag.String("dev", "../bin/dev", "the dev to measure")
	peer    = flag.String("peer", "../dist/peers/docker-compose", "docker compose's program")
	output  = flag.String("output", "", "write the tables to this file too")
)

const image = "busybox:bench"

func TestMain(m *testing.M) {
	flag.Parse()
	enginetest.Isolate()
	os.Exit(m.Run())
}

// tool is a command line under test.
type tool struct {
	name string
	path string
	host string
}

// devTool is bin/dev, which `make build` makes, if no other is asked for.
func devTool(t *testing.T, host string) tool { return newTool(t, "dev", *program, host) }

func newTool(t *testing.T, name, path, host string) tool {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs %s: run make build, or make bench", path)
	}
	// A copy, as an installation makes one: what the linker has just written lies in memory in another way, and counts as more.
	installed := filepath.Join(t.TempDir(), name)
	if err := copyFile(installed, path); err != nil {
		t.Fatal(err)
	}
	return tool{name, installed, host}
}

// copyFile copies a program, in pieces: what this process has in memory counts for those that it starts.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{out}, in)
	return errors.Join(err, out.Close())
}

// sample is what one run of a command cost.
type sample struct {
	wall   time.Duration
	cpu    time.Duration
	memory int64 // peak resident set, bytes
}

// run runs the tool on a project in dir and returns what it cost. The project's name is the tool's, so that both can exist side by side.
func (c tool) run(t *testing.T, dir string, args ...string) sample {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.host, "COMPOSE_PROJECT_NAME=bench-"+c.name, "NO_COLOR=1")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &out
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", c.name, strings.Join(args, " "), err, out.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatalf("no resource usage of %s", c.name)
	}
	return sample{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss << 10} // Linux counts in KiB
}

// independent is a project of n services that need nothing of each other, in a folder of its own.
func independent(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%02d:\n    image: %s\n    command: [\"sleep\", \"3600\"]\n", i, image)
	}
	return project(t, b.String())
}

// chain is a project of n services, each waiting for the one before it to be healthy.
func chain(t *testing.T, n int, startInterval string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, `  s%02d:
    image: %s
    command: ["sleep", "3600"]
    healthcheck:
      test: ["CMD", "true"]
      interval: 1s
`, i, image)
		if startInterval != "" {
			fmt.Fprintf(&b, "      start_period: 10s\n      start_interval: %s\n", startInterval)
		}
		if i > 0 {
			fmt.Fprintf(&b, "    depends_on:\n      s%02d:\n        condition: service_healthy\n", i-1)
		}
	}
	return project(t, b.String())
}

// mixed has what takes the engine other calls than containers: networks, volumes, published ports.
func mixed(t *testing.T) string {
	t.Helper()
	return project(t, `
x-base: &base
  image: `+image+`
  command: ["sleep", "3600"]
services:
  a: {<<: *base, networks: [n1, n2], volumes: ["v1:/1", "v2:/2"], ports: ["127.0.0.1::80"]}
  b: {<<: *base, networks: [n2, n3], volumes: ["v3:/3", "v4:/4"], ports: ["127.0.0.1::80"]}
  c: {<<: *base, networks: [n3], volumes: ["v5:/5"], ports: ["127.0.0.1::80"]}
networks: {n1: , n2: , n3: }
volumes: {v1: , v2: , v3: , v4: , v5: }
`)
}

func project(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
