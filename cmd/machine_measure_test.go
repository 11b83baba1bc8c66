// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

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
)

var measureVM = flag.String("measure-vm", "", "take the times of commands on a machine, and append them to this file as a table")

// commandsTable tells how long commands took, against one boot of the same machine.
func commandsTable(create, start, stop time.Duration) string {
	return fmt.Sprintf("\n## Commands\n\n| | | against `start` | aim |\n|---|---|---|---|\n| `create` from an image in the cache | %.1f s | %.2f | little more than 1 |\n"+
		"| `start` | %.1f s | 1 | |\n| `stop`, without containers | %.1f s | %.2f | 2 s |\n",
		create.Seconds(), create.Seconds()/start.Seconds(), start.Seconds(), stop.Seconds(), stop.Seconds()/start.Seconds())
}

func TestCommandsTable(t *testing.T) {
	if got := commandsTable(12*time.Second, 10*time.Second, time.Second); !strings.Contains(got, "| 12.0 s | 1.20 | little more than 1 |\n") || !strings.Contains(got, "| 1.0 s | 0.10 | 2 s |\n") {
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
	create := func() time.Duration {
		t.Helper()
		return dev("create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", "box")
	}
	create() // brings the image into the cache, and has the accelerator proven
	dev("rm", "-f", "box")
	cached := create()
	stop := dev("stop", "box")
	start := dev("start", "box")
	table := commandsTable(cached, start, stop)
	t.Log(table)
	f, err := os.OpenFile(*measureVM, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(table); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
