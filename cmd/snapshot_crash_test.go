// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// newKiller makes one that listens at a unix socket, where the program knows that the engine is this computer's and uses its volumes' folders, or at a tcp
// port, where all goes through the engine.
func newKiller(t *testing.T, network string) *killer {
	t.Helper()
	engine := strings.TrimPrefix(enginetest.Start(t).Host, "unix://")
	address := filepath.Join(t.TempDir(), "k.sock")
	if network == "tcp" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	k := &killer{host: network + "://" + l.Addr().String()}
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
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			testKilledSnapshot(t, newProject(t, "killedsave", crashProject), newKiller(t, network))
		})
	}
}

func testKilledSnapshot(t *testing.T, p *project, k *killer) {
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
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			testKilledRestore(t, newProject(t, "killedrestore", crashProject), newKiller(t, network))
		})
	}
}

func testKilledRestore(t *testing.T, p *project, k *killer) {
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

// TestClonedSnapshot saves and restores where the file system shares blocks between files, and kills both at many moments: a snapshot is whole or not there,
// and `up` never starts on half of a volume.
func TestClonedSnapshot(t *testing.T) {
	base := cloningFileSystem(t, enginetest.Start(t).Paths.Root)
	p := newProject(t, "clonedsnapshot", crashProject)
	store := filepath.Join(base, "home")
	p.env = append(p.env, "DEV_HOME="+store)
	p.dev(t, "up", "-d")
	p.dev(t, "exec", "-T", "db", "sh", "-c", "i=0; while [ $i -lt 400 ]; do echo one >/data/$i; i=$((i+1)); done; echo one >/data/file")
	p.dev(t, "snapshot", "save", "first")
	if blobs, err := os.ReadDir(filepath.Join(store, "snapshots", "blobs")); err != nil || len(blobs) > 0 {
		t.Fatalf("the volume was archived, not cloned: %v, %v", blobs, err)
	}
	kill := func(delay time.Duration, args ...string) {
		t.Helper()
		c := p.command(args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	for delay := 30 * time.Millisecond; delay < 600*time.Millisecond; delay += 110 * time.Millisecond {
		p.dev(t, "exec", "-T", "db", "sh", "-c", "echo two >/data/file; rm -f /data/7")
		kill(delay, "snapshot", "save", "second")
		p.dev(t, "up", "-d")
		if strings.Contains(p.dev(t, "snapshot", "ls", "-q"), "second") {
			if got := p.dev(t, "snapshot", "diff", "second"); got != "" {
				t.Fatalf("killed after %s: the snapshot is not the volume: %s", delay, got)
			}
			p.dev(t, "snapshot", "rm", "second")
		}
		kill(delay, "snapshot", "restore", "-y", "first")
		if p.command("up", "-d").Run() == nil {
			if got := p.dev(t, "exec", "-T", "db", "sh", "-c", "cat /data/file; ls /data | wc -l"); got != "one\n401" && got != "two\n400" {
				t.Fatalf("killed after %s: up started on %q", delay, got)
			}
		}
		p.dev(t, "snapshot", "restore", "-y", "first")
		p.dev(t, "up", "-d")
		if got := p.dev(t, "exec", "-T", "db", "sh", "-c", "cat /data/file; ls /data | wc -l"); got != "one\n401" {
			t.Fatalf("killed after %s: restored %q", delay, got)
		}
	}
	p.dev(t, "--env", "copy", "env", "create", "--from", "main")
	p.dev(t, "--env", "copy", "up", "-d")
	if got := p.dev(t, "--env", "copy", "exec", "-T", "db", "sh", "-c", "cat /data/file; ls /data | wc -l"); got != "one\n401" {
		t.Errorf("the environment's copy has %q", got)
	}
	p.dev(t, "env", "rm", "-y", "copy")
	p.dev(t, "down", "-v", "--no-snapshot")
}

// cloningFileSystem puts the engine's volumes on XFS for the test, and gives a folder on the same.
func cloningFileSystem(t *testing.T, engineRoot string) string {
	t.Helper()
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("needs mkfs.xfs (package xfsprogs)")
	}
	image, base := filepath.Join(t.TempDir(), "image"), t.TempDir()
	run := func(name string, args ...string) error {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(512<<20), f.Close(), run("mkfs.xfs", "-q", image)); err != nil {
		t.Fatal(err)
	}
	if err := run("mount", "-o", "loop", image, base); err != nil {
		t.Skipf("XFS cannot be mounted here: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(engineRoot, "*", "volumes"))
	if direct, statErr := os.Stat(filepath.Join(engineRoot, "volumes")); statErr == nil && direct.IsDir() {
		found = []string{filepath.Join(engineRoot, "volumes")}
	}
	if err != nil || len(found) != 1 {
		t.Fatalf("the engine's volumes: %q, %v", found, err)
	}
	volumes := found[0]
	if err := errors.Join(os.Mkdir(filepath.Join(base, "volumes"), 0o701), run("mount", "--bind", filepath.Join(base, "volumes"), volumes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(run("umount", volumes), run("umount", base)); err != nil {
			t.Error(err)
		}
	})
	return base
}
