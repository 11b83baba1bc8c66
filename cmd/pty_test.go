// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// screen is a terminal with the program in it.
type screen struct {
	t    *testing.T
	pty  *os.File
	tty  *os.File
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

// inTerminal starts the program in a terminal of 100 by 30.
func (p *project) inTerminal(t *testing.T, args ...string) *screen {
	t.Helper()
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, pty: ptmx, tty: tty, cmd: p.command(args...), done: make(chan struct{})}
	s.resize(100, 30)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	// The terminal is the program's controlling one, so that Ctrl-C in it is a signal.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		b := make([]byte, 4096)
		for {
			n, err := ptmx.Read(b)
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = tty.Close()
		_ = ptmx.Close()
		<-s.done
	})
	return s
}

func (s *screen) resize(width, height uint16) {
	s.t.Helper()
	if err := pty.Setsize(s.pty, &pty.Winsize{Cols: width, Rows: height}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) typeKeys(keys string) {
	s.t.Helper()
	if _, err := s.pty.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) contents() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// expect waits until what the program wrote matches.
func (s *screen) expect(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if re.MatchString(s.contents()) {
			return
		}
	}
	s.t.Fatalf("no %q on the screen:\n%q", pattern, s.contents())
}

// exit waits for the program's end and gives its exit code. The terminal must be as it was.
func (s *screen) exit(before *term.State) int {
	s.t.Helper()
	timer := time.AfterFunc(60*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	err := s.cmd.Wait()
	after, stateErr := term.GetState(int(s.tty.Fd()))
	if stateErr != nil {
		s.t.Fatal(stateErr)
	}
	if *after != *before {
		s.t.Errorf("the terminal's mode was not restored")
	}
	cursorShown := func() bool {
		return strings.LastIndex(s.contents(), "\x1b[?25h") >= strings.LastIndex(s.contents(), "\x1b[?25l")
	}
	for end := time.Now().Add(5 * time.Second); !cursorShown(); time.Sleep(10 * time.Millisecond) { // the last output may still be on its way
		if time.Now().After(end) {
			s.t.Errorf("the cursor stays hidden")
			break
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return 0
}

func (s *screen) state() *term.State {
	s.t.Helper()
	state, err := term.GetState(int(s.tty.Fd()))
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

const terminalProject = `
services:
  web:
    image: busybox:test
    command: sh -c 'while true; do echo tick; sleep 0.1; done'
    stop_grace_period: 0s
  stubborn:
    image: busybox:test
    command: sh -c 'trap "" TERM; echo ready; while true; do sleep 0.1; done'
    stop_grace_period: 10m
    profiles: [stubborn]
`

func TestExecInTerminal(t *testing.T) {
	p := newProject(t, "terminal-exec", terminalProject)
	p.dev(t, "up", "-d")
	s := p.inTerminal(t, "exec", "web", "sh")
	before := s.state()
	s.typeKeys("tty; stty size\n")
	s.expect(`/dev/pts/\d`)
	s.expect(`30 100`)
	s.resize(80, 20)
	s.typeKeys("sleep 0.3; stty size\n")
	s.expect(`20 80`)
	// Ctrl-C belongs to the command.
	s.typeKeys("sleep 1000\n")
	time.Sleep(300 * time.Millisecond)
	s.typeKeys("\x03")
	s.typeKeys("echo still $((40+2))\n")
	s.expect(`still 42`)
	s.typeKeys("exit 5\n")
	if code := s.exit(before); code != 5 {
		t.Errorf("exit code %d, want the command's 5", code)
	}
}

func TestDetachKeysLeaveTheCommand(t *testing.T) {
	p := newProject(t, "terminal-detach", terminalProject)
	p.dev(t, "up", "-d")
	s := p.inTerminal(t, "exec", "web", "sh", "-c", "echo ready; sleep 5; touch /tmp/went-on")
	before := s.state()
	s.expect("ready")
	s.typeKeys("\x10\x11")
	if code := s.exit(before); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if p.command("exec", "-T", "web", "test", "-e", "/tmp/went-on").Run() == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the command did not go on")
		}
	}
}

func TestRunInTerminal(t *testing.T) {
	p := newProject(t, "terminal-run", terminalProject)
	s := p.inTerminal(t, "run", "--rm", "web", "sh", "-c", "stty size; read line; echo got $line; exit 6")
	before := s.state()
	s.expect(`30 100`)
	s.typeKeys("words\n")
	s.expect(`got words`)
	if code := s.exit(before); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
	if left := p.dev(t, "ps", "-aq"); left != "" {
		t.Errorf("--rm left %s", left)
	}
}

func TestCtrlCStopsAttachedUp(t *testing.T) {
	p := newProject(t, "terminal-up", terminalProject)
	s := p.inTerminal(t, "up", "web")
	before := s.state()
	s.expect(`\[\+\] up `)
	s.expect(`web-1.*\|.*tick`)
	s.typeKeys("\x03")
	s.expect(`Gracefully Stopping... press Ctrl\+C again to force`)
	if code := s.exit(before); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := p.dev(t, "ps", "-q"); left != "" {
		t.Errorf("still running: %s", left)
	}
}

func TestSecondCtrlCKills(t *testing.T) {
	p := newProject(t, "terminal-kill", terminalProject)
	s := p.inTerminal(t, "up", "stubborn")
	before := s.state()
	s.expect(`\|.*ready`)
	s.typeKeys("\x03")
	s.expect(`Gracefully Stopping`)
	s.expect(`Stopping `)
	s.typeKeys("\x03")
	if code := s.exit(before); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := p.dev(t, "ps", "-q"); left != "" {
		t.Errorf("still running: %s", left)
	}
}

func TestCtrlCEndsADetachedUp(t *testing.T) {
	p := newProject(t, "terminal-abort", `
services:
  web:
    image: busybox:test
    command: sleep 1000
    stop_grace_period: 0s
    healthcheck: {test: "exit 1", interval: 100ms, retries: 100000}
`)
	s := p.inTerminal(t, "up", "-d", "--wait")
	before := s.state()
	s.expect(`Waiting`)
	s.typeKeys("\x03")
	if code := s.exit(before); code != exitCancelled {
		t.Errorf("exit code %d, want %d", code, exitCancelled)
	}
	if state := p.dev(t, "ps", "--format", "{{.State}}"); state != "running" {
		t.Errorf("what was started is %q, want it to stay", state)
	}
}
