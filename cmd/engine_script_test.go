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

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed71221737/dev/engine/enginetest"
)

// TestServiceScript starts and stops the engine that dev carries with its own commands. Each script has an engine of its own, in a network
// namespace of its own: $DEV is the program inside it.
func TestServiceScript(t *testing.T) {
	bundle := enginetest.Bundle(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/service",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup:               func(e *testscript.Env) error { return setupService(e, bundle) },
	})
}

func setupService(e *testscript.Env, bundle string) error {
	setHome(e)
	e.Setenv("DEV_ENGINE_BUNDLE", bundle)
	dir, err := os.MkdirTemp("/tmp", "ds-") // short, because unix sockets are made below it
	if err != nil {
		return err
	}
	e.Setenv("DEV_ENGINE_ROOT", filepath.Join(dir, "e"))
	if err := linkProgram(e, dir); err != nil {
		return err
	}
	holder := exec.Command("unshare", "--net", "sleep", "infinity")
	if err := holder.Start(); err != nil {
		return err
	}
	if err := awaitNamespace(holder.Process.Pid); err != nil {
		return errors.Join(err, holder.Process.Kill())
	}
	program := filepath.Join(e.WorkDir, "in-namespace")
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=/proc/%d/ns/net dev \"$@\"\n", holder.Process.Pid)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		return err
	}
	e.Setenv("DEV", program)
	env := append([]string{}, e.Vars...)
	e.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		stop := exec.CommandContext(ctx, program, "engine", "uninstall", "--data", "--yes")
		stop.Env = env
		if out, err := stop.CombinedOutput(); err != nil {
			e.T().Log("uninstall the engine:", err, strings.TrimSpace(string(out)))
		}
		_ = holder.Process.Kill()
		_ = holder.Wait()
		_ = os.RemoveAll(dir)
	})
	return nil
}

// awaitNamespace waits until a process has gone into a network namespace of its own: until then, who follows it comes into this one.
func awaitNamespace(pid int) error {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && its != own {
			return nil
		}
	}
	return errors.New("unshare made no network namespace within a minute")
}

// linkProgram puts the program where other users can run it: $LINK/dev.
func linkProgram(e *testscript.Env, dir string) error {
	e.Setenv("LINK", dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, bin := range filepath.SplitList(e.Getenv("PATH")) {
		if err := os.Link(filepath.Join(bin, "dev"), filepath.Join(dir, "dev")); err == nil {
			return os.Chmod(filepath.Join(dir, "dev"), 0o755)
		}
	}
	return errors.New("dev is not in PATH")
}
