// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package cmd

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/enginetest"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

var measureVM = flag.String("measure-vm", "", "take the times of commands on a machine, and append them to this file as a table")

// measured is a row of the table of commands.
type measured struct {
	what string
	took time.Duration
	aim  string
}

// commandsTable tells how long commands took, against one boot of the same machine, which is the first row.
func commandsTable(rows []measured) string {
	var b strings.Builder
	b.WriteString("\n## Commands\n\n| | | against a boot | aim |\n|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %.2f s | %.2f | %s |\n", r.what, r.took.Seconds(), r.took.Seconds()/rows[0].took.Seconds(), r.aim)
	}
	return b.String()
}

func TestCommandsTable(t *testing.T) {
	got := commandsTable([]measured{{"`start`, by a boot", 10 * time.Second, ""}, {"`stop`", time.Second, "2 s"}})
	if !strings.Contains(got, "| `start`, by a boot | 10.00 s | 1.00 |  |\n| `stop` | 1.00 s | 0.10 | 2 s |\n") {
		t.Error(got)
	}
}

// TestMeasureMachine takes the times of bin/dev's commands on a machine, for docs/performance-vm.md. It asserts no times.
func TestMeasureMachine(t *testing.T) {
	if *measureVM == "" {
		t.Skip("measures: use make bench-vm")
	}
	image := vmImage(t)
	program, err := filepath.Abs("../bin/dev")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	dev := func(args ...string) time.Duration {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), vmPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append([]string{"machine"}, args...)...)
		cmd.Env = append(os.Environ(), "DEV_HOME="+filepath.Join(home, "h"), "DOCKER_CONFIG="+filepath.Join(home, "docker"))
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dev machine %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return time.Since(began)
	}
	t.Cleanup(func() { dev("rm", "-f", "box") })
	create := func(name string) time.Duration {
		t.Helper()
		return dev("create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", name)
	}
	first := create("box") // brings the image into the cache, has the accelerator proven, and leaves a template
	shrunk := func(dir string) {
		t.Helper()
		awaitShrunk(t, filepath.Join(home, "h", dir))
	}
	t.Cleanup(func() { dev("rm", "-f", "new") })
	cached := create("new")
	dev("rm", "-f", "new")
	stop := dev("stop", "box")
	fresh := dev("start", "box")
	dev("stop", "box")
	shrunk("machines/box/memory")
	start := dev("start", "box")
	cold := dev("stop", "--cold", "box")
	boot := dev("start", "box")
	info, ten := measureTen(t, filepath.Join(home, "h", "machines", "box", "docker.sock"), dev)
	suspend, resume := ten()
	dev("stop", "box")
	wake := measureWake(t, home, dev)
	table := commandsTable([]measured{
		{"`start`, by a boot", boot, ""},
		{"`create`, the first of its kind, with the image brought into the cache", first, ""},
		{"`create` from a template", cached, ""},
		{"`stop`, without containers", stop, "2 s"},
		{"`stop --cold`", cold, ""},
		{"`start` from memory", fresh, "1.0 s"},
		{"`start` from compressed memory", start, "1.0 s"},
		{"first `info` of the engine after it booted", info, ""},
		{"`suspend` with ten containers", suspend, ""},
		{"`resume` with ten containers", resume, "1.5 s"},
		{"first answer of the engine of a machine that was asleep", wake, "1.5 s"},
	})
	t.Log(table)
	appendTo(t, *measureVM, table)
}

// measureWake returns how long the first question takes to the engine of a machine that has fallen asleep.
func measureWake(t *testing.T, home string, dev func(args ...string) time.Duration) time.Duration {
	t.Helper()
	dev("create", "--image", vmImage(t), "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", "--sleep-after", "10s", "sleeper")
	t.Cleanup(func() { dev("rm", "-f", "sleeper") })
	dir := filepath.Join(home, "h", "machines", "sleeper")
	agent := hostagent.Dial(machine.Dir(dir).Control())
	for end := time.Now().Add(vmPatience); ; time.Sleep(200 * time.Millisecond) {
		status, err := agent.Status(t.Context())
		if err == nil && status.Phase == hostagent.Suspended && status.Asleep {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the machine does not fall asleep: %+v, %v", status, err)
		}
	}
	c, err := client.New(client.WithHost("unix://" + filepath.Join(dir, "docker.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if _, err := c.Ping(t.Context(), client.PingOptions{}); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// awaitShrunk waits until a saved memory is compressed.
func awaitShrunk(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(vmPatience); ; time.Sleep(50 * time.Millisecond) {
		state, err := saved.Read(dir)
		if err == nil && state != nil && state.Shrunk {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the memory in %q is not compressed: %v", dir, err)
		}
	}
}

// measureTen asks an engine that has just started for its information, and returns what suspends and resumes the machine with ten containers.
func measureTen(t *testing.T, socket string, dev func(args ...string) time.Duration) (info time.Duration, ten func() (suspend, resume time.Duration)) {
	t.Helper()
	c, err := client.New(client.WithHost("unix://" + socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	began := time.Now()
	if _, err := c.Info(t.Context(), client.InfoOptions{}); err != nil {
		t.Fatal(err)
	}
	info = time.Since(began)
	return info, func() (suspend, resume time.Duration) {
		enginetest.BusyboxImage(t, c, "busybox:test")
		for range 10 {
			made, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Config: &container.Config{Image: "busybox:test", Cmd: []string{"sleep", "1000000"}}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		suspend = dev("suspend", "box")
		resume = dev("resume", "box")
		list, err := c.ContainerList(t.Context(), client.ContainerListOptions{})
		if err != nil || len(list.Items) != 10 {
			t.Fatalf("%d containers run after the resume: %v", len(list.Items), err)
		}
		return suspend, resume
	}
}
