// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/enginetest"
)

// project is a folder with a Compose file and the program to work on it, on a real engine.
type project struct {
	dir, program string
	env          []string
}

// newProject writes a Compose file into a folder of the name, which becomes the project's. The project is removed with the test.
func newProject(t *testing.T, name, compose string) *project {
	t.Helper()
	engine := enginetest.Start(t)
	enginetest.BusyboxImage(t, engine.Client(t), "busybox:test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	p := &project{dir: filepath.Join(root, name), program: filepath.Join(root, "dev")}
	if err := os.Symlink(self, p.program); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "DOCKER_HOST="+engine.Host, "HOME="+root, "DEV_HOME="+root, "DOCKER_CONFIG="+root, "TERM=xterm")
	p.write(t, compose)
	t.Cleanup(func() { _ = p.command("down", "-v", "-t", "0", "--remove-orphans").Run() })
	return p
}

func (p *project) write(t *testing.T, compose string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "compose.yaml"), []byte(compose), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *project) command(args ...string) *exec.Cmd {
	c := exec.Command(p.program, args...)
	c.Dir, c.Env = p.dir, p.env
	return c
}

// dev runs the program, which must succeed, and gives its standard output.
func (p *project) dev(t *testing.T, args ...string) string {
	t.Helper()
	c := p.command(args...)
	var out, err bytes.Buffer
	c.Stdout, c.Stderr = &out, &err
	if runErr := c.Run(); runErr != nil {
		t.Fatalf("dev %s: %v\n%s%s", strings.Join(args, " "), runErr, out.String(), err.String())
	}
	return strings.TrimSpace(out.String())
}

// TestKilledUpConverges kills `up` with SIGKILL at many moments of a recreation, and looks whether the next one puts everything right: one
// container a replica, the data of named and anonymous volumes kept, nothing left to do.
func TestKilledUpConverges(t *testing.T) {
	version := func(v string) string { return strings.ReplaceAll(killedProject, "VERSION", v) }
	p := newProject(t, "killed", version("0"))
	p.dev(t, "up", "-d")
	p.dev(t, "exec", "-T", "web", "sh", "-c", "echo kept > /named/file; echo kept > /anonymous/file")
	delay := 20 * time.Millisecond
	for i := 1; delay < 1200*time.Millisecond; i++ {
		p.write(t, version(strings.Repeat("x", i)))
		c := p.command("up", "-d", "--scale", "worker=3")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		_ = c.Process.Kill()
		_ = c.Wait()

		p.dev(t, "up", "-d")
		// A call that the killed one had sent may still be carried out by the engine after the next one has looked: what it makes is an
		// ordinary difference, which one more settles.
		if plan := p.dev(t, "plan"); plan != "no changes" {
			t.Logf("killed after %s: a call under way was carried out late:\n%s", delay, plan)
			p.dev(t, "up", "-d")
		}
		if plan := p.dev(t, "plan"); plan != "no changes" {
			t.Fatalf("killed after %s: something is left to do:\n%s", delay, plan)
		}
		if got := p.dev(t, "exec", "-T", "web", "cat", "/named/file", "/anonymous/file"); got != "kept\nkept" {
			t.Fatalf("killed after %s: data is lost: %q", delay, got)
		}
		// Which of three workers stay is the planner's choice: those that are up to date already.
		want := "web\nworker\nworker"
		if got := p.dev(t, "ps", "-a", "--format", "{{.Service}}"); got != want {
			t.Fatalf("killed after %s: containers are\n%s\nwant\n%s", delay, got, want)
		}
		delay += 90 * time.Millisecond
	}
}

const killedProject = `
services:
  web:
    image: busybox:test
    command: sleep 1000
    stop_grace_period: 0s
    environment: {BUILD: "VERSION"}
    volumes: [data:/named, /anonymous]
  worker:
    image: busybox:test
    command: sleep 1000
    stop_grace_period: 0s
    scale: 2
    environment: {BUILD: "VERSION"}
    depends_on: [web]
volumes: {data: {}}
`

// TestRunPassesSignalsOn sends a signal to a `run` without a terminal: it is the command's, whose exit code counts.
func TestRunPassesSignalsOn(t *testing.T) {
	p := newProject(t, "signals", `
services:
  web: {image: "busybox:test"}
`)
	c := p.command("run", "--rm", "-T", "web", "sh", "-c", `trap "echo got it; exit 42" TERM; echo ready; while true; do sleep 0.1; done`)
	out := &readyWriter{ready: make(chan struct{})}
	c.Stdout = out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	<-out.ready
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 || !strings.Contains(out.text.String(), "got it") {
		t.Errorf("%v, output %q; want exit status 42 after the command got the signal", err, out.text.String())
	}
}

// readyWriter tells when the first output comes.
type readyWriter struct {
	ready chan struct{}
	text  bytes.Buffer
}

func (w *readyWriter) Write(b []byte) (int, error) {
	if w.text.Len() == 0 {
		close(w.ready)
	}
	return w.text.Write(b)
}
