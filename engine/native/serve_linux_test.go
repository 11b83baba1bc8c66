// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/native/supervise"
)

// fakeEngine is a service whose containerd and dockerd are shell scripts.
func fakeEngine(t *testing.T, containerd, dockerd string) ServeOptions {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("DEV_ENGINETEST_STAGE") == "" {
		t.Skip("changes the network: needs root and a network namespace of its own")
	}
	if _, err := chooseFirewall(FirewallAuto, observeFirewall(t.Context())); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/tmp", "ds-") // short, because unix sockets are made below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	o := ServeOptions{Paths: Paths{Root: dir, Run: filepath.Join(dir, "run")}, Log: slog.New(slog.DiscardHandler),
		Source: fakeBundle(t, runtime.GOARCH, "1.0.0", map[string]string{"bin/containerd": "#!/bin/sh\n" + containerd, "bin/dockerd": "#!/bin/sh\n" + dockerd})}
	if err := CheckAlone(o.Paths); err != nil {
		t.Skip(err)
	}
	return o
}

// TestServeFails: a component that cannot start leaves nothing running, and
// the reason where the starting command finds it.
func TestServeFails(t *testing.T) {
	o := fakeEngine(t, "exec sleep 1000", "echo no such option >&2; exit 7")
	err := Serve(t.Context(), o)
	var exited *supervise.ExitedError
	if !errors.As(err, &exited) || exited.Name != "dockerd" || exited.Exit.Reason != "exit status 7" {
		t.Fatalf("Serve = %v", err)
	}
	data, err := os.ReadFile(o.Paths.failure())
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFailure(data)
	if err != nil || f.Stage != StageStart || strings.Join(f.Lines(), "|") != "no such option" {
		t.Errorf("failure = %+v, %v", f, err)
	}
	left, err := processesUnder(o.Paths.programs())
	if err != nil || len(left) > 0 || isLocked(o.Paths.runLock()) {
		t.Errorf("left: processes %v, %v; locked: %v", left, err, isLocked(o.Paths.runLock()))
	}
}

// TestStopWhileStarting: a start that hangs can be stopped.
func TestStopWhileStarting(t *testing.T) {
	o := fakeEngine(t, "exec sleep 1000", "exec sleep 1000")
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), o) }()
	s := &Service{Paths: o.Paths, Log: o.Log}
	for {
		if phase, r := s.observe(t.Context()); phase == PhaseStarting && r.Stage == StageStart && len(r.Components) == 2 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if started, err := s.Start(contextFor(t, 100*time.Millisecond), Settings{}); started || err == nil {
		t.Errorf("a second start while the first hangs = %v, %v", started, err)
	}
	if err := Serve(t.Context(), o); !errors.Is(err, ErrRunning) {
		t.Errorf("a second supervisor = %v", err)
	}
	stopped, err := s.Stop(t.Context(), StopOptions{})
	if !stopped || err != nil {
		t.Errorf("Stop = %v, %v", stopped, err)
	}
	if err := <-served; !errors.Is(err, errAborted) {
		t.Errorf("Serve = %v", err)
	}
}

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestLeftoversEnded: components of a supervisor that is gone are ended before
// others are started, and only those.
func TestLeftoversEnded(t *testing.T) {
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	bundles := t.TempDir()
	inst, err := install(t.Context(), fakeBundle(t, runtime.GOARCH, "1.0.0", map[string]string{"bin/dockerd": string(shell), "bin/containerd": string(shell)}), bundles)
	if err != nil {
		t.Fatal(err)
	}
	p := Paths{Root: t.TempDir(), Run: t.TempDir(), Bundles: bundles}
	start := func(name, config string) *os.Process {
		argv := []string{name, "-c", "while :; do sleep 1; done", "--config", config}
		proc, err := os.StartProcess(filepath.Join(inst.bin(), name), argv, &os.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = proc.Kill(); _, _ = proc.Wait() })
		return proc
	}
	ours := []*os.Process{start("dockerd", p.daemonConfig()), start("containerd", p.containerdConfig())}
	others := []*os.Process{start("dockerd", "/run/other/daemon.json"), start("dockerd", p.containerdConfig())}
	if err := endLeftovers(t.Context(), slog.New(slog.DiscardHandler), p); err != nil {
		t.Fatal(err)
	}
	for _, proc := range ours {
		if executable(proc.Pid) != "" {
			t.Errorf("process %d is still there", proc.Pid)
		}
	}
	for _, proc := range others {
		if executable(proc.Pid) == "" {
			t.Errorf("process %d, which is none of ours, was ended", proc.Pid)
		}
	}
}
