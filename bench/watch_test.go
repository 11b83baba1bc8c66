// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/enginetest"
)

// TestMeasureWatch takes how long a saved file takes to be in the container, and what a watcher costs that has nothing to do.
func TestMeasureWatch(t *testing.T) {
	if !*measure {
		t.Skip("wants an idle machine: make bench runs it")
	}
	const saves = 50
	e := enginetest.Start(t)
	enginetest.BusyboxImage(t, e.Client(t), image)
	dev := devTool(t, e.Host)
	dir := project(t, `
services:
  web:
    image: `+image+`
    command: ["sleep", "3600"]
    stop_grace_period: 0s
    develop: {watch: [{action: sync, path: src, target: /app}]}
`)
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o750); err != nil {
		t.Fatal(err)
	}
	dev.run(t, dir, "up", "-d")
	defer dev.run(t, dir, "down", "-t", "0")
	dev.run(t, dir, "exec", "-T", "web", "mkdir", "/app")
	watcher, said, _ := background(t, dev, dir, "watch", "--no-up")
	awaitLine(t, said, "Watching for web")
	// The container itself looks every 2 ms or so, and says what has come.
	_, arrivals, stop := background(t, dev, dir, "exec", "-T", "web", "sh", "-c",
		"echo ready; n=0; while :; do while [ ! -s /app/file$n. ]; do sleep 0.002; done; echo file$n.; n=$((n+1)); done")
	awaitLine(t, arrivals, "ready")

	var taken []time.Duration
	for i := range saves + 1 {
		name := fmt.Sprintf("file%d.", i)
		time.Sleep(200 * time.Millisecond) // as a person saves: not while something is under way
		began := time.Now()
		if err := os.WriteFile(filepath.Join(src, name), []byte("content\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, arrivals, name)
		if i > 0 { // the first one makes connections
			taken = append(taken, time.Since(began))
		}
	}
	stop()
	const idle = 10 * time.Second
	time.Sleep(2 * time.Second)
	before := processorTime(t, watcher)
	time.Sleep(idle)
	cost := processorTime(t, watcher) - before
	slices.Sort(taken)
	at := func(percent int) float64 { return ms(taken[(len(taken)-1)*percent/100]) }
	fmt.Printf("\n### Watch\n\n| what | p50 | p90 | max | aim |\n|---|---|---|---|---|\n| a saved file is in the container, %d saves | %.0f ms | %.0f ms | %.0f ms | 100 ms |\n",
		len(taken), at(50), at(90), at(100))
	fmt.Printf("\nProcessor time of an idle watcher in %v: %v (the kernel counts in steps of 10 ms).\n", idle, cost)
}

// background runs the tool until the test ends, and gives the lines that it writes.
func background(t *testing.T, c tool, dir string, args ...string) (pid int, lines <-chan string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+c.host, "COMPOSE_PROJECT_NAME=bench-"+c.name, "NO_COLOR=1")
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(r); s.Scan(); {
			select {
			case out <- s.Text():
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); _ = cmd.Wait(); _ = w.Close() })
	return cmd.Process.Pid, out, cancel
}

// awaitLine waits for a line with a text in it.
func awaitLine(t *testing.T, lines <-chan string, text string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("ended before it said %q", text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-deadline:
			t.Fatalf("did not say %q within a minute", text)
		}
	}
}

// processorTime is what a process has used so far.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the third on
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
