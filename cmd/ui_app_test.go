// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tmux is a terminal of 80 by 24 that a test types into and reads.
type tmux struct {
	t      *testing.T
	socket string
}

// inTmux runs the program in a terminal of its own.
func (p *project) inTmux(t *testing.T, args ...string) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("needs tmux (hack/deps.sh)")
	}
	m := &tmux{t: t, socket: filepath.Join(t.TempDir(), "t")}
	c := exec.Command("tmux", append([]string{"-S", m.socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", p.program}, args...)...)
	c.Dir, c.Env = p.dir, append(p.env, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = m.command("kill-server").Run() })
	return m
}

func (m *tmux) command(args ...string) *exec.Cmd {
	return exec.Command("tmux", append([]string{"-S", m.socket}, args...)...)
}

func (m *tmux) screen() string {
	out, _ := m.command("capture-pane", "-p").Output() // empty once the program has ended
	return string(out)
}

// wait waits until all texts are on the screen.
func (m *tmux) wait(texts ...string) {
	m.t.Helper()
	var text string
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text = m.screen()
		missing := false
		for _, want := range texts {
			missing = missing || !strings.Contains(text, want)
		}
		if !missing {
			return
		}
	}
	m.t.Fatalf("%q did not come to the screen:\n%s", texts, text)
}

func (m *tmux) press(keys ...string) {
	m.t.Helper()
	if out, err := m.command(append([]string{"send-keys"}, keys...)...).CombinedOutput(); err != nil {
		m.t.Fatalf("send-keys %q: %v: %s", keys, err, out)
	}
}

// asFile makes the program a file of its own: what runs itself again finds the file that it is, not the name of a link to it.
func (p *project) asFile(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(p.program)
	if err == nil {
		err = os.Remove(p.program)
	}
	if err == nil {
		err = os.WriteFile(p.program, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestUI drives the interface in a terminal of 80 by 24 on a real engine.
func TestUI(t *testing.T) {
	p := newProject(t, "ui", `
services:
  api:
    image: busybox:test
    command: sh -c 'echo api says hello; echo another line; sleep infinity'
    stop_grace_period: 0s
  worker:
    image: busybox:test
    command: sh -c 'echo worker says hello; sleep infinity'
    stop_grace_period: 0s
`)
	p.asFile(t)
	p.dev(t, "up", "-d")
	if out := p.dev(t, "ui", "--once"); !strings.Contains(out, "SERVICE") || !strings.Contains(out, "worker   running") || !strings.Contains(out, "worker-1 | worker says hello") {
		t.Errorf("--once shows\n%s", out)
	}
	m := p.inTmux(t, "ui")
	m.wait("dev · ui  2 services", "> api", "api says hello", "q quit")
	m.press("/")
	m.press("another", "Enter")
	m.wait("── api /another", "another line")
	m.press("Escape")
	m.wait("api says hello")
	m.press("Down")
	m.wait("> worker", "worker says hello")
	m.press("s")
	m.wait("stop worker: this would be done", "container ui-worker-1", "y do it")
	m.press("n")
	m.wait("stop worker: left alone")
	m.press("s")
	m.wait("y do it")
	m.press("y")
	m.wait("stop worker: done", "exited")
	m.press("u")
	m.wait("up worker: this would be done", "start")
	m.press("y")
	m.wait("up worker: done", "> worker   running")
	m.press("e")
	m.wait("#")
	m.press("echo in-$((40+2))", "Enter")
	m.wait("in-42")
	m.press("exit", "Enter")
	m.wait("shell in worker: done")
	m.press("q")
	for end := time.Now().Add(60 * time.Second); m.screen() != ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not end:\n%s", m.screen())
		}
	}
}
