// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed71221737/dev/engine/enginetest"
)

// killer stands between the program and the engine. It kills the program in place of the call that it is set to, counting those that change something
// or read a volume.
type killer struct {
	host string

	mu     sync.Mutex
	left   int
	victim *exec.Cmd
}

func newKiller(t *testing.T) *killer {
	t.Helper()
	engine := strings.TrimPrefix(enginetest.Start(t).Host, "unix://")
	k := &killer{host: "unix://" + filepath.Join(t.TempDir(), "k.sock")}
	l, err := net.Listen("unix", strings.TrimPrefix(k.host, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", engine)
	}}
	proxy.FlushInterval = -1
	proxy.ErrorLog = nil
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method != http.MethodGet && r.Method != http.MethodHead || strings.HasSuffix(r.URL.Path, "/archive")) && k.strike() {
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return k
}

// strike kills the program if its time has come.
func (k *killer) strike() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.victim == nil {
		return false
	}
	if k.left--; k.left == 0 {
		_ = k.victim.Process.Kill()
	}
	return k.left <= 0
}

// run runs the program and kills it at its n-th call. It reports whether that came to pass.
func (k *killer) run(t *testing.T, p *project, n int, args ...string) (killed bool) {
	t.Helper()
	c := p.command(args...)
	c.Env = append(c.Env, "DOCKER_HOST="+k.host)
	k.mu.Lock()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	k.left, k.victim = n, c
	k.mu.Unlock()
	err := c.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	killed = k.left <= 0
	k.victim = nil
	if !killed && err != nil {
		t.Fatalf("dev %s, not killed: %v", strings.Join(args, " "), err)
	}
	return killed
}

const crashProject = `
services:
  db:
    image: busybox:test
    command: sleep infinity
    stop_grace_period: 0s
    volumes: ["data:/data", "/anonymous"]
volumes: {data: }
`

// TestKilledSnapshot kills `snapshot save` at every call that it makes: no container stays paused for longer than until the next command, no half of a
// snapshot is there, and saving again works.
func TestKilledSnapshot(t *testing.T) {
	p, k := newProject(t, "killedsave", crashProject), newKiller(t)
	p.dev(t, "up", "-d")
	p.dev(t, "exec", "-T", "db", "sh", "-c", "echo one >/data/file")
	for n := 1; ; n++ {
		killed := k.run(t, p, n, "snapshot", "save", "first")
		if !killed {
			break
		}
		if list := p.dev(t, "snapshot", "ls", "-q"); list != "" {
			// Killed after the snapshot was whole, while cleaning up.
			p.dev(t, "snapshot", "rm", "first")
		}
		p.dev(t, "up", "-d")
		if state := p.dev(t, "ps", "--format", "{{.State}}"); state != "running" {
			t.Fatalf("killed at call %d: the container is %q after up", n, state)
		}
		p.dev(t, "snapshot", "save", "again")
		p.dev(t, "snapshot", "rm", "again")
	}
	if got := p.dev(t, "snapshot", "diff", "first"); got != "" {
		t.Errorf("the snapshot differs from the volume: %s", got)
	}
}

// TestKilledRestore kills `snapshot restore` at every call that it makes. `up` never starts on half of a volume; the same restore, run again, finishes;
// what was there before is brought back by the snapshot that the hint names.
func TestKilledRestore(t *testing.T) {
	p, k := newProject(t, "killedrestore", crashProject), newKiller(t)
	p.dev(t, "up", "-d")
	p.dev(t, "exec", "-T", "db", "sh", "-c", "echo one >/data/file")
	p.dev(t, "snapshot", "save", "first")
	content := func() string { return p.dev(t, "exec", "-T", "db", "cat", "/data/file") }
	for n := 1; ; n++ {
		p.dev(t, "exec", "-T", "db", "sh", "-c", "echo two >/data/file")
		killed := k.run(t, p, n, "snapshot", "restore", "-y", "first")
		if out, err := p.command("up", "-d").CombinedOutput(); err == nil {
			if got := content(); got != "one" && got != "two" {
				t.Fatalf("killed at call %d: up started on %q", n, got)
			}
		} else if !strings.Contains(string(out), "was interrupted") || !strings.Contains(string(out), "dev snapshot restore first") {
			t.Fatalf("killed at call %d: up failed with\n%s", n, out)
		}
		if _, back, ok := strings.Cut(p.failing("up", "-d"), "or go back: dev snapshot restore "); ok && n%2 == 0 {
			p.dev(t, "snapshot", "restore", "-y", strings.Fields(back)[0])
			p.dev(t, "up", "-d")
			if got := content(); got != "two" {
				t.Fatalf("killed at call %d: went back to %q", n, got)
			}
		}
		p.dev(t, "snapshot", "restore", "-y", "first")
		p.dev(t, "up", "-d")
		if got := content(); got != "one" {
			t.Fatalf("killed at call %d: restored %q", n, got)
		}
		if !killed {
			break
		}
	}
}

// failing is what a command prints on standard error, if it fails.
func (p *project) failing(args ...string) string {
	c := p.command(args...)
	var err strings.Builder
	c.Stderr = &err
	if c.Run() == nil {
		return ""
	}
	return err.String()
}
