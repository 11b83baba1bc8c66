// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed71221737/dev/engine/build/buildkit"
	"github.com/seed71221737/dev/engine/enginetest"
	"github.com/seed71221737/dev/machine/serve"
)

// TestMain lets scripts run this test binary as `dev`, `docker-compose` and dev's other programs, and gives the others an engine of their own (see enginetest).
func TestMain(m *testing.M) {
	run := func() { os.Exit(Main()) }
	programs := map[string]func(){
		"dev": run, "docker-compose": run,
		"dev-build": func() { os.Exit(buildkit.Main()) }, "dev-hostagent": func() { os.Exit(MainWith(serve.Serve)) },
	}
	if programs[filepath.Base(os.Args[0])] == nil {
		enginetest.Isolate()
		peer = findPeer()
	}
	testscript.Main(m, programs)
}

// TestScript runs the program where there is no engine.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			setHome(e)
			e.Setenv("DOCKER_HOST", "unix://"+filepath.Join(e.WorkDir, "no.sock"))
			return nil
		},
	})
}

// TestEngineScript runs the program on a real engine. Scripts get the engine in DOCKER_HOST, an image busybox:test, the address of a registry in
// REGISTRY (user and password: me, geheim; anonymous for repositories under open/), and a project named after the script as long as their Compose
// file is in their first folder.
func TestEngineScript(t *testing.T) {
	engine := enginetest.Start(t)
	enginetest.BusyboxImage(t, engine.Client(t), "busybox:test")
	registry := startRegistry(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/engine",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			setHome(e)
			e.Setenv("DOCKER_HOST", engine.Host)
			e.Setenv("REGISTRY", registry)
			e.Setenv("COMPOSE", peer)
			e.Setenv("DOCKER", os.Getenv("DEV_TEST_DOCKER"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			return name == "compose" && peer != "" || name == "docker" && isProgram(os.Getenv("DEV_TEST_DOCKER")), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"eventually": eventually},
	})
}

func isProgram(name string) bool {
	_, err := exec.LookPath(name)
	return name != "" && err == nil
}

// setHome keeps the user's own settings out of a script.
func setHome(e *testscript.Env) {
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("DEV_HOME", filepath.Join(e.WorkDir, ".dev"))
	e.Setenv("DOCKER_CONFIG", filepath.Join(e.WorkDir, ".docker"))
	e.Setenv("DEV_ENGINE_ROOT", filepath.Join(e.WorkDir, "engine"))
}

// peer is docker compose, for scripts that use both; empty if it is not there.
var peer string

// findPeer looks for docker compose before scripts have this program under that name.
func findPeer() string {
	if peer := os.Getenv("DEV_TEST_COMPOSE"); peer != "" {
		return peer
	}
	peer, err := exec.LookPath("docker-compose")
	if err != nil {
		return ""
	}
	return peer
}

// eventually runs a command until its standard output matches a pattern, or does not with "!".
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND [ARGS...]")
	}
	re := regexp.MustCompile("(?m)" + args[0])
	var out string
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		if out = ts.ReadFile("stdout"); re.MatchString(out) != neg {
			return
		}
	}
	ts.Fatalf("%s did not come to match %q; last output:\n%s", strings.Join(args[1:], " "), args[0], out)
}
