// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed71221737/dev/engine/enginetest"
)

// vmPatience bounds one command on a machine: under emulation on a busy host a boot takes minutes.
const vmPatience = 10 * time.Minute

// TestVMScript runs the scripts in testdata/vm on one real machine, made and removed with the program itself. DEV_TEST_VM=1 asks for it;
// DEV_TEST_MACHINE_IMAGE names a folder with a machine image (make demo-vm leaves one in dist).
func TestVMScript(t *testing.T) {
	image := vmImage(t)
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	program := filepath.Join(home, "bin", "dev")
	build := exec.Command("go", "build", "-o", filepath.Dir(program)+string(filepath.Separator), "./dev", "./dev-hostagent", "./dev-build")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build dev: %v\n%s", err, out)
	}
	shared := filepath.Join(home, "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"DEV_HOME=" + filepath.Join(home, "h"), "DOCKER_CONFIG=" + filepath.Join(home, "docker")}
	dev := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), vmPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dev %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() { dev("machine", "rm", "-f", "box") })
	dev("machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--share", shared, "--docker-context", "yes", "--use", "box")
	socket := "unix://" + filepath.Join(home, "h", "machines", "box", "docker.sock")
	c, err := client.New(client.WithHost(socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	enginetest.BusyboxImage(t, c, "busybox:test")
	broken, other := imageWithoutKernel(t, image), imageWithOtherName(t, image)
	params := testscript.Params{
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			for _, kv := range env {
				name, value, _ := strings.Cut(kv, "=")
				e.Setenv(name, value)
			}
			e.Setenv("DEV", program)
			e.Setenv("SHARED", shared)
			e.Setenv("BROKEN", broken)
			e.Setenv("OTHER", other)
			e.Setenv("SOCKET", socket)
			e.Setenv("MACHINE", filepath.Join(home, "h", "machines", "box"))
			e.Setenv("DOCKER", os.Getenv("DEV_TEST_DOCKER"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			return name == "slow" && os.Getenv("DEV_TEST_VM") == "all" || name == "docker" && isProgram(os.Getenv("DEV_TEST_DOCKER")), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"eventually": eventually, "get": get},
	}
	// The scripts of a folder run side by side; what ends the machine is for none of them.
	for _, dir := range []string{"testdata/vm", "testdata/vm/suspend", "testdata/vm/restart", "testdata/vm/disk", "testdata/vm/upgrade"} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			params.Dir = dir
			testscript.Run(t, params)
		})
	}
}

// vmImage is the folder of the machine image to test with.
func vmImage(t *testing.T) string {
	t.Helper()
	if os.Getenv("DEV_TEST_VM") == "" {
		t.Skip("boots a machine under QEMU: set DEV_TEST_VM=1")
	}
	if runtime.GOOS != "linux" {
		t.Skip("runs on Linux")
	}
	dir := os.Getenv("DEV_TEST_MACHINE_IMAGE")
	if dir == "" {
		dir = filepath.Join("..", "dist", "machine-image-"+runtime.GOARCH)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !isImageFolder(dir) {
		t.Skip("there is no machine image: make demo-vm builds one into dist")
	}
	return dir
}

// get asks an address, with what the last command printed in place of STDOUT, until it answers, and prints the answer.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: get URL")
	}
	url := strings.ReplaceAll(args[0], "STDOUT", strings.TrimSpace(ts.ReadFile("stdout")))
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var body string
		if body, err = fetch(url); err == nil {
			fmt.Fprint(ts.Stdout(), body)
			return
		}
	}
	ts.Fatalf("get %s: %v", url, err)
}

func fetch(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
