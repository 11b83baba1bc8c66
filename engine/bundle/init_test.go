// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buildInit compiles docker-init for this machine.
func buildInit(t *testing.T) string {
	t.Helper()
	tg, err := newTarget(runtime.GOARCH, runtime.GOARCH)
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("docker-init is built for linux on amd64 and arm64")
	}
	if _, err := exec.LookPath(tg.CC); err != nil {
		t.Skip("no C compiler: ", installHint(tg))
	}
	out := filepath.Join(t.TempDir(), "docker-init")
	for _, c := range components(testPins()) {
		if c.Name == "docker-init" {
			if _, err := output(t.Context(), "", buildCommand(c, tg, out)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestInitExitCodes(t *testing.T) {
	init := buildInit(t)
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"success", []string{"-s", "--", "true"}, 0},
		{"status", []string{"-s", "--", "sh", "-c", "exit 7"}, 7},
		{"without dashes", []string{"-s", "sh", "-c", "exit 8"}, 8},
		{"options of the command", []string{"-s", "--", "sh", "-c", "exit $#", "-g", "-s"}, 1},
		{"signal", []string{"-s", "--", "sh", "-c", "kill -KILL $$"}, 137},
		{"not found", []string{"-s", "--", "/no/such/program"}, 127},
		{"not executable", []string{"-s", "--", "/etc/passwd"}, 126},
		{"no command", nil, 2},
		{"unknown option", []string{"-x", "--", "true"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := exec.CommandContext(t.Context(), init, tc.args...).Run()
			var exit *exec.ExitError
			got := 0
			if errors.As(err, &exit) {
				got = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("exit code %d, want %d", got, tc.want)
			}
		})
	}
}

// The engine reads the version in the form of tini's.
func TestInitVersion(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), buildInit(t), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "tini version "+initVersion+" - git.0123456789ab\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// startInit runs a shell script under docker-init and waits for its first line.
func startInit(t *testing.T, script string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	// Under nohup SIGHUP is ignored, and a shell cannot trap what it was started with ignored. A handler here gives children the default back.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, buildInit(t), append(append([]string{"-s"}, args...), "--", "sh", "-c", script)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	return cmd, r
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

func TestInitForwardsSignals(t *testing.T) {
	for sig, name := range map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGUSR1: "USR1", syscall.SIGHUP: "HUP"} {
		cmd, r := startInit(t, `trap 'echo caught; exit 42' `+name+`; echo ready; while :; do sleep 0.01; done`)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(r)
		if code := exitCode(cmd.Wait()); code != 42 || string(rest) != "caught\n" {
			t.Errorf("SIG%s: exit code %d, output %q", name, code, rest)
		}
	}
}

// With -g the signal reaches children of the command, too.
func TestInitSignalsGroup(t *testing.T) {
	cmd, r := startInit(t, `trap 'wait; exit 0' TERM; sh -c 'trap "echo child; exit 0" TERM; echo ready; while :; do sleep 0.01; done' & wait; wait`, "-g")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	_ = cmd.Wait()
	if !strings.Contains(string(rest), "child\n") {
		t.Errorf("the child heard nothing: %q", rest)
	}
}

// Orphans are adopted and reaped while the command runs: none stays a zombie.
func TestInitReapsOrphans(t *testing.T) {
	cmd, r := startInit(t, `
		me=$PPID
		for i in 1 2 3 4 5; do (sleep 0.02 & ) ; done
		n=5; tries=0
		while [ $n -gt 0 ] && [ $tries -lt 500 ]; do
			sleep 0.02; tries=$((tries+1)); n=0
			for c in $(cat /proc/$me/task/$me/children); do [ $c = $$ ] || n=$((n+1)); done
		done
		echo ready; echo left $n`)
	rest, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if string(rest) != "left 0\n" {
		t.Errorf("got %q", rest)
	}
}
