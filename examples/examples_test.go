// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package examples_test brings up each example with bin/dev on a real engine, and uses it as its README says.
package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/enginetest"
	"github.com/seed71221737/dev/internal/baseimage"
)

// TestMain keeps the host's network: the images install Debian's packages.
func TestMain(m *testing.M) {
	enginetest.Isolate(enginetest.HostNetwork)
	os.Exit(m.Run())
}

// example is a project under test, in a folder that the test may change.
type example struct {
	t    *testing.T
	dev  string
	dir  string
	port string
	env  []string
}

// newExample copies an example, and prepares the engine for it.
func newExample(t *testing.T, name string) *example {
	t.Helper()
	dev, err := filepath.Abs("../bin/dev")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dev); err != nil {
		t.Skip("needs bin/dev: make build")
	}
	e := enginetest.Start(t)
	dist, err := filepath.Abs("../dist")
	if err != nil {
		t.Fatal(err)
	}
	if err := baseimage.Ensure(t.Context(), e.Client(t), dist, t.Output()); err != nil {
		t.Fatal(err)
	}
	x := &example{t: t, dev: dev, dir: filepath.Join(t.TempDir(), name), port: freePort(t)}
	if err := os.CopyFS(x.dir, os.DirFS(name)); err != nil {
		t.Fatal(err)
	}
	x.env = append(os.Environ(), "DOCKER_HOST="+e.Host, "DEV_HOME="+t.TempDir(), "PORT="+x.port, "GUESTBOOK_PORT="+x.port)
	t.Cleanup(func() {
		if t.Failed() {
			x.try("ps", "--all")
			x.try("logs", "--tail", "20")
		}
		x.try("down", "-v", "-t", "1")
	})
	return x
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// command is dev in the example's folder. It does not end with the test's context, which is done before clean-up begins.
func (x *example) command(args ...string) (cmd *exec.Cmd, cancel context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	cmd = exec.CommandContext(ctx, x.dev, args...)
	cmd.Dir, cmd.Env = x.dir, x.env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd, cancel
}

// run runs dev and returns its stdout.
func (x *example) run(args ...string) string {
	x.t.Helper()
	cmd, cancel := x.command(args...)
	defer cancel()
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		x.t.Fatalf("dev %s: %v\n%s%s", strings.Join(args, " "), err, tail(talk.String(), 60), out.String())
	}
	return out.String()
}

// try runs dev for what it says, in a test that has ended.
func (x *example) try(args ...string) {
	cmd, cancel := x.command(args...)
	defer cancel()
	out, err := cmd.CombinedOutput()
	if err != nil || x.t.Failed() {
		x.t.Logf("dev %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// request asks the example's server, and returns what it answers.
func (x *example) request(method, contentType, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(x.t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:"+x.port+"/", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", contentType)
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func (x *example) get() string { return x.ask(http.MethodGet, "", "", http.StatusOK) }

func (x *example) ask(method, contentType, body string, want int) string {
	x.t.Helper()
	code, text, err := x.request(method, contentType, body)
	if err != nil {
		x.t.Fatal(err)
	}
	if code != want {
		x.t.Fatalf("%s: got %d, want %d: %s", method, code, want, text)
	}
	return text
}

// sign adds an entry to the guestbook; the answer is the page.
func (x *example) sign(author, message string) string {
	x.t.Helper()
	form := url.Values{"author": {author}, "message": {message}}
	return x.ask(http.MethodPost, "application/x-www-form-urlencoded", form.Encode(), http.StatusOK)
}

func (x *example) wantIn(text string, parts ...string) {
	x.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			x.t.Errorf("lacks %q:\n%s", part, text)
		}
	}
}

// healthy is how many of the project's containers run and are healthy.
func (x *example) healthy() int {
	x.t.Helper()
	n := 0
	for lines := json.NewDecoder(strings.NewReader(x.run("ps", "--format", "json"))); lines.More(); {
		var c struct{ State, Health string }
		if err := lines.Decode(&c); err != nil {
			x.t.Fatal(err)
		}
		if c.State == "running" && c.Health == "healthy" {
			n++
		}
	}
	return n
}

var replica = regexp.MustCompile(`answered by replica (\w+)`)

func TestGuestbook(t *testing.T) {
	x := newExample(t, "guestbook")
	x.run("up", "-d", "--wait")
	if n := x.healthy(); n != 5 {
		t.Fatalf("%d healthy containers, want 5", n)
	}
	x.wantIn(x.sign("Ada", "first <entry>"), "<b>Ada</b>: first &lt;entry&gt;", "Visit 1")
	x.wantIn(x.run("exec", "-T", "db", "psql", "guestbook", "-tAc", "SELECT author, message FROM entry"), "Ada|first <entry>")
	x.wantIn(x.run("exec", "-T", "cache", "redis-cli", "get", "visits"), "1")

	replicas := map[string]bool{}
	for range 60 {
		if m := replica.FindStringSubmatch(x.get()); m != nil {
			replicas[m[1]] = true
		}
	}
	if len(replicas) != 2 {
		t.Errorf("%d replicas answered, want 2: %v", len(replicas), replicas)
	}
	// the data's network is internal: no way out
	for _, route := range strings.Split(x.run("exec", "-T", "db", "cat", "/proc/net/route"), "\n") {
		if f := strings.Fields(route); len(f) > 1 && f[1] == "00000000" {
			t.Errorf("the database has a default route: %s", route)
		}
	}
	x.run("plan", "--exit-code")

	x.run("down")
	x.run("up", "-d", "--wait")
	x.wantIn(x.get(), "<b>Ada</b>: first &lt;entry&gt;")
}

// TestGuestbookKilled ends `up` by SIGKILL at many points, from nothing and with everything there. The next `up` converges, and what is
// stored stays.
func TestGuestbookKilled(t *testing.T) {
	x := newExample(t, "guestbook")
	x.run("build")
	for _, lines := range []int{1, 6, 11, 16, 21, 26} {
		x.kill(lines, "up", "-d", "--wait")
		x.converge()
		x.run("down", "-v", "-t", "1")
	}
	x.run("up", "-d", "--wait")
	x.sign("Grace", "kept")
	for _, lines := range []int{1, 5, 9, 13, 17, 21} {
		x.kill(lines, "up", "-d", "--wait", "--force-recreate", "-t", "1")
		x.settle()
		x.converge()
		x.wantIn(x.get(), "<b>Grace</b>: kept")
	}
}

// converge brings the guestbook up, and looks whether all is well and nothing too much.
func (x *example) converge() {
	x.t.Helper()
	x.run("up", "-d", "--wait")
	if n := x.healthy(); n != 5 {
		x.t.Fatalf("%d healthy containers, want 5", n)
	}
	x.run("plan", "--exit-code")
	if out := x.run("ps", "--all", "-q"); len(strings.Fields(out)) != 5 {
		x.t.Fatalf("containers are left behind:\n%s", x.run("ps", "--all"))
	}
}

// kill starts dev and kills it after so many lines of its progress.
func (x *example) kill(lines int, args ...string) {
	x.t.Helper()
	cmd, cancel := x.command(append([]string{"--progress", "plain"}, args...)...)
	defer cancel()
	progress := &killAfter{lines: lines, kill: func() { _ = cmd.Process.Kill() }}
	cmd.Stdout, cmd.Stderr = progress, progress
	err := cmd.Run()
	x.t.Logf("after %d lines: %v", progress.seen, err)
}

// settle waits until stops that the engine had begun before a kill are over: they go on without us, and until then what is being stopped looks
// like what runs.
func (x *example) settle() {
	x.t.Helper()
	last, since := "", time.Now()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		state := x.run("ps", "--all", "--format", "{{.Name}} {{.State}}")
		if state != last {
			last, since = state, time.Now()
		}
		if time.Since(since) > 2*time.Second {
			return
		}
	}
	x.t.Fatalf("containers do not come to rest:\n%s", last)
}

// killAfter calls kill when it has been written so many lines.
type killAfter struct {
	lines, seen int
	kill        func()
}

func (k *killAfter) Write(p []byte) (int, error) {
	k.seen += bytes.Count(p, []byte("\n"))
	if k.seen >= k.lines {
		k.kill()
	}
	return len(p), nil
}

func TestHotReload(t *testing.T) {
	x := newExample(t, "hot-reload")
	x.run("up", "-d", "--wait")
	x.wantIn(x.get(), "Hello, change me and reload the page")
	source := filepath.Join(x.dir, "app", "__init__.py")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("change me and reload the page"), []byte("it works"), 1)
	if err := os.WriteFile(source, text, 0o644); err != nil {
		t.Fatal(err)
	}
	x.eventually("Hello, it works")
	// the environment is part of the service: this is a new container
	x.env = append(x.env, "GREETING=Bonjour")
	x.wantIn(x.run("plan"), "environment.GREETING")
	x.run("up", "-d", "--wait")
	x.eventually("Bonjour, it works")
}

// eventually waits until the server answers with want. The server restarts meanwhile, so it may not answer at all.
func (x *example) eventually(want string) {
	x.t.Helper()
	last := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		_, text, err := x.request(http.MethodGet, "", "")
		if strings.Contains(text, want) {
			return
		}
		last = fmt.Sprint(text, err)
	}
	x.t.Fatalf("the server does not answer with %q; last: %s", want, last)
}

func TestMigrate(t *testing.T) {
	x := newExample(t, "migrate")
	x.run("up", "-d", "--wait")
	x.wantIn(x.run("logs", "--no-log-prefix", "migrate"), "applied 001_note.sql\napplied 002_done.sql\nthe schema is up to date\n")
	x.ask(http.MethodPost, "text/plain", "buy milk", http.StatusCreated)

	migration := filepath.Join(x.dir, "migrations", "003_author.sql")
	if err := os.WriteFile(migration, []byte("ALTER TABLE note ADD COLUMN author TEXT;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	x.run("up", "-d", "--build", "--wait")
	x.wantIn(x.run("logs", "--no-log-prefix", "migrate"), "applied 003_author.sql")
	x.wantIn(x.get(), "made by the first migration", "buy milk")

	// a migration that fails keeps the new server from starting, and the error says which one and why
	if err := os.WriteFile(filepath.Join(x.dir, "migrations", "004_bad.sql"), []byte("ALTER TABLE none;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, cancel := x.command("up", "-d", "--build", "--wait")
	defer cancel()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("up with a failing migration succeeded:\n%s", out)
	}
	x.wantIn(string(out), "migrate", "004_bad.sql")
}
