// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

// sleeper is a machine "box" in a home of its own, whose host agent is played: it says that the machine is asleep, or suspended, and counts who would wake it.
type sleeper struct {
	t       *testing.T
	home    string
	program string
	mu      sync.Mutex
	status  hostagent.Status
	woken   []string
}

const sleeperSpec = `version: 1
driver: qemu
arch: ARCH
cpus: 2
memory_mib: 1024
disk_mib: 512
image: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

func newAsleepMachine(t *testing.T) *sleeper {
	t.Helper()
	home, err := os.MkdirTemp("", "slp") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &sleeper{t: t, home: home, program: filepath.Join(home, "dev")}
	dir := filepath.Join(home, "machines", "box")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, s.program); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"machine.yaml": strings.Replace(sleeperSpec, "ARCH", runtime.GOARCH, 1), "id": strings.Repeat("1", 32),
		"id_ed25519": "", "id_ed25519.pub": "", "host_ed25519": "", "host_ed25519.pub": "", "data.img": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "data.img"), 512<<20); err != nil {
		t.Fatal(err)
	}
	s.status = hostagent.Status{
		Version: 1, Machine: "box", Phase: hostagent.Suspended, Asleep: true, AgentPID: os.Getpid(), Started: time.Now(), Engine: "29.1.2",
		Docker: "unix://" + filepath.Join(dir, "docker.sock"),
		SSH:    s.trap("SSH", "tcp", "127.0.0.1:0"), TCP: s.trap("the TLS port", "tcp", "127.0.0.1:0"),
	}
	s.trap("the engine's socket", "unix", filepath.Join(dir, "docker.sock"))
	s.serve(filepath.Join(dir, "agent.sock"))
	return s
}

// trap listens where somebody who comes would wake the machine.
func (s *sleeper) trap(what, network, address string) string {
	s.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	var all sync.WaitGroup
	s.t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wake(what)
			c.Close()
		}
	})
	return l.Addr().String()
}

func (s *sleeper) wake(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken = append(s.woken, what)
}

// serve plays the control socket, whose questions wake nobody.
func (s *sleeper) serve(path string) {
	s.t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		s.t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch r.URL.Path {
		case "/v1/status":
			_ = json.NewEncoder(w).Encode(s.status)
		case "/v1/health":
			_ = json.NewEncoder(w).Encode([]hostagent.Problem{})
		case "/v1/metrics":
			_ = json.NewEncoder(w).Encode(hostagent.Metrics{})
		default:
			s.woken = append(s.woken, r.Method+" "+r.URL.Path)
			http.NotFound(w, r)
		}
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	s.t.Cleanup(func() { server.Close(); <-served })
}

func (s *sleeper) dev(args ...string) string {
	s.t.Helper()
	c := exec.CommandContext(s.t.Context(), s.program, args...)
	c.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "DOCKER_") }),
		"HOME="+s.home, "DEV_HOME="+s.home, "XDG_RUNTIME_DIR="+s.home, "DOCKER_CONFIG="+s.home, "SHELL=/bin/sh")
	out, err := c.CombinedOutput()
	s.t.Logf("%q: %v\n%s", args, err, out)
	return string(out)
}

// TestQuestionsDoNotWake: who only asks about machines leaves one that is asleep, and one that is suspended, as it is, and is told what is known.
func TestQuestionsDoNotWake(t *testing.T) {
	s := newAsleepMachine(t)
	s.dev("machine", "use", "box")
	for _, asleep := range []bool{true, false} {
		s.mu.Lock()
		s.status.Asleep = asleep
		s.mu.Unlock()
		for _, question := range [][]string{
			{"machine", "ls"}, {"machine", "ls", "--format", "json"}, {"machine", "status", "box"}, {"machine", "inspect", "box"}, {"machine", "df", "-v"},
			{"machine", "env", "box"}, {"machine", "env", "--tcp", "box"}, {"machine", "ip", "box"}, {"machine", "url", "box"}, {"machine", "config", "box"},
			{"machine", "version", "box"}, {"machine", "active"}, {"machine", "ssh-config", "box"}, {"machine", "logs", "box"}, {"machine", "snapshot", "ls", "box"},
			{"engine", "status"}, {"engine", "status", "--format", "json"},
		} {
			out := s.dev(question...)
			switch strings.Join(question, " ") {
			case "machine ls", "machine inspect box":
				if !strings.Contains(out, "29.1.2") {
					t.Errorf("%q does not say the engine's version", question)
				}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.woken) > 0 {
		t.Errorf("it was woken by %q", s.woken)
	}
}

// TestSavedIsShown: of a suspended machine without a host agent, what was noted of it is shown, and marked as that.
func TestSavedIsShown(t *testing.T) {
	s := newAsleepMachine(t)
	dir := filepath.Join(s.home, "machines", "box")
	disk, err := saved.IdentifyDisk(filepath.Join(dir, "data.img"))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := machine.ParseSpec("box", []byte(strings.Replace(sleeperSpec, "ARCH", runtime.GOARCH, 1)))
	if err != nil {
		t.Fatal(err)
	}
	facts, err := machine.SpecFacts(spec)
	if err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(map[string]any{
		"version": 1, "file": "x.mem", "created": time.Now(), "suspended": true, "disk": disk, "notes": map[string]any{"engine": "28.3.4", "link_secret": "c2VjcmV0"},
		"facts": facts,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "memory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory", "state.json"), info, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "agent.sock")); err != nil { // its agent ended with this computer
		t.Fatal(err)
	}
	if out := s.dev("machine", "ls"); !strings.Contains(out, "Saved") || !strings.Contains(out, "v28.3.4") {
		t.Errorf("ls: %s", out)
	}
	out := s.dev("machine", "inspect", "box")
	if !strings.Contains(out, `"Saved"`) || !strings.Contains(out, "28.3.4") || strings.Contains(out, "c2VjcmV0") {
		t.Errorf("inspect: %s", out)
	}
}
