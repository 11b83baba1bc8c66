// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native"
	"github.com/seed71221737/dev/engine/native/supervise"
)

// Engine is a running engine.
type Engine struct {
	// Host is the address of the Docker API, such as for --host or DOCKER_HOST.
	Host string
	// Paths are where it keeps everything.
	Paths native.Paths
	// Service stops and starts it. A test that does so must leave it running.
	Service *native.Service
}

// Environment variables between the processes of one isolated test binary.
const (
	envStage   = "DEV_ENGINETEST_STAGE"
	envDir     = "DEV_ENGINETEST_DIR"
	envNetwork = "DEV_ENGINETEST_NET"
	envRoot    = "DEV_ENGINETEST_ROOT" // of another engine of the same test binary
	envReason  = "DEV_ENGINETEST_SKIP"
)

// startTimeout bounds a start with unpacking on a slow machine.
const startTimeout = 3 * time.Minute

// shared is the engine of this test binary: starting one for each test would
// cost most of the tests' time.
var shared = sync.OnceValues(start)

// Start returns the engine of this test binary, and starts it at the first
// call. It skips the test where that is impossible.
func Start(t testing.TB) *Engine {
	t.Helper()
	require(t)
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t)
		}
	})
	e, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// require skips the test where no engine can run.
func require(t testing.TB) {
	t.Helper()
	reason := unavailable()
	if reason == "" {
		return
	}
	if os.Getenv("DEV_TEST_ENGINE") == "require" {
		t.Fatalf("a real engine is required: %s", reason)
	}
	t.Skipf("needs a real engine: %s", reason)
}

// Bundle returns the name of the bundle, for a test that starts an engine with
// dev's own commands, as DEV_ENGINE_BUNDLE. It skips the test where Start does.
func Bundle(t testing.TB) string {
	t.Helper()
	require(t)
	source, err := native.FindSource(os.Getenv, moduleProgram())
	if err != nil {
		t.Fatal(err)
	}
	return source.Name
}

// showLogs shows the last lines of the engine's logs.
func showLogs(t testing.TB) {
	for _, component := range []string{"supervisor", "containerd", "dockerd"} {
		log := supervise.Log{Path: filepath.Join(testPaths().LogDir(), component+".log")}
		for _, line := range log.Tail(15, 0) {
			t.Logf("%s: %s", component, line)
		}
	}
}

// Client returns a client of the engine that is closed with the test.
func (e *Engine) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost(e.Host))
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// start starts the engine of this test binary.
func start() (*Engine, error) {
	paths := testPaths()
	source, err := native.FindSource(os.Getenv, moduleProgram())
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	e := &Engine{Host: paths.Host(), Paths: paths, Service: &native.Service{
		Paths: paths, Source: source, Log: slog.New(slog.DiscardHandler),
		Supervisor: []string{self}, Env: []string{envStage + "=" + stageServe, envDir + "=" + os.Getenv(envDir), "DEV_ENGINE_BUNDLE=" + source.Name},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	_, err = e.Service.Start(ctx, Settings())
	return e, err
}

// Settings are the engine's settings in tests: the defaults, with containers
// in a control group that can be swept.
func Settings() native.Settings {
	s := native.NewSettings(config.Engine{}, func(string) string { return "" })
	s.CgroupParent = "/" + filepath.Base(os.Getenv(envDir))
	return s
}

// testPaths are below the folder that is removed at the end; unpacked bundles
// are kept for the next run.
func testPaths() native.Paths {
	dir := os.Getenv(envDir)
	if other := os.Getenv(envRoot); other != "" {
		return native.Paths{Root: filepath.Join(other, "root"), Run: filepath.Join(other, "run")}
	}
	return native.Paths{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Bundles: cacheDir()}
}

// cacheDir keeps unpacked bundles for all test binaries.
func cacheDir() string { return filepath.Join(os.TempDir(), "dev-enginetest-bundles") }

// moduleProgram is where `make build` puts the program, beside which the
// bundle is found: bin/dev of the module that the test belongs to.
func moduleProgram() string {
	dir, err := os.Getwd() // of a test: its package's folder
	if err != nil {
		return ""
	}
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "engine", "bundle", "go.mod")); err == nil {
			return filepath.Join(dir, "bin", "dev")
		}
	}
	return ""
}
