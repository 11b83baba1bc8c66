// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package access

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// guest is a stand-in for a machine's SSH server: it answers a few commands, and serves the host's files as its own.
type guest struct {
	login Login
	home  string

	mu       sync.Mutex
	requests []string // what was asked of sessions
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startGuest(t *testing.T) *guest {
	t.Helper()
	host, user := newSigner(t), newSigner(t)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), user.PublicKey().Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{home: t.TempDir(), login: Login{Machine: "m", Address: l.Addr().String(), User: "root", Key: user, HostKey: host.PublicKey()}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { g.serve(conn, config) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return g
}

func (g *guest) serve(conn net.Conn, config *ssh.ServerConfig) {
	c, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer c.Close()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		go g.session(ch, requests)
	}
}

func (g *guest) note(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, text)
}

func (g *guest) asked() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.requests, "\n")
}

func (g *guest) session(ch ssh.Channel, requests <-chan *ssh.Request) {
	exit := func(status uint32) {
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
		_ = ch.Close()
	}
	for r := range requests {
		var text struct{ Text string }
		_ = ssh.Unmarshal(r.Payload, &text)
		g.note(r.Type + " " + text.Text)
		_ = r.Reply(true, nil)
		switch {
		case r.Type == "subsystem":
			server, err := sftp.NewServer(ch, sftp.WithServerWorkingDirectory(filepath.ToSlash(g.home)))
			if err == nil {
				_ = server.Serve()
			}
			_ = ch.Close()
		case r.Type == "signal":
			_, _ = io.WriteString(ch, "got "+text.Text)
			exit(7)
		case r.Type == "exec" && text.Text == "cat":
			go func() { _, _ = io.Copy(ch, ch); exit(0) }()
		case r.Type == "exec" && text.Text == "fail":
			_, _ = io.WriteString(ch.Stderr(), "no\n")
			exit(3)
		case r.Type == "exec" && text.Text == "vanish":
			_ = ch.Close()
		}
	}
}

func connect(t *testing.T, g *guest) *ssh.Client {
	t.Helper()
	c, err := Dial(t.Context(), g.login)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestDialRefusesAnotherHost(t *testing.T) {
	g := startGuest(t)
	l := g.login
	l.HostKey = newSigner(t).PublicKey()
	if _, err := Dial(t.Context(), l); !errors.Is(err, ErrHostKey) {
		t.Errorf("another host key gives %v", err)
	}
	l = g.login
	l.Key = newSigner(t)
	if _, err := Dial(t.Context(), l); err == nil || !strings.Contains(err.Error(), `log in to machine "m"`) {
		t.Errorf("another user's key gives %v", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("patience is over"))
	defer cancel()
	_, err = Dial(ctx, Login{Machine: "m", Address: l.Addr().String(), Key: newSigner(t), HostKey: newSigner(t).PublicKey()})
	if err == nil || !strings.Contains(err.Error(), "patience is over") {
		t.Errorf("err = %v", err)
	}
}

func TestRun(t *testing.T) {
	c := connect(t, startGuest(t))
	var out, errs bytes.Buffer
	if err := Run(t.Context(), c, Session{Command: "cat", In: strings.NewReader("hello"), Out: &out, Err: &errs}); err != nil || out.String() != "hello" {
		t.Errorf("cat: %q, %v", out.String(), err)
	}
	err := Run(t.Context(), c, Session{Command: "fail", Out: &out, Err: &errs})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 3 || errs.String() != "no\n" {
		t.Errorf("fail: %v, stderr %q", err, errs.String())
	}
	if err := Run(t.Context(), c, Session{Command: "vanish"}); err == nil || errors.As(err, &exit) {
		t.Errorf("vanish: %v", err)
	}
}

// TestRunDoesNotWaitForInput: a command that ends leaves an input that has more to come.
func TestRunDoesNotWaitForInput(t *testing.T) {
	c := connect(t, startGuest(t))
	in, keep := io.Pipe()
	defer keep.Close()
	err := Run(t.Context(), c, Session{Command: "fail", In: in, Out: io.Discard, Err: io.Discard})
	var exit *ExitError
	if !errors.As(err, &exit) {
		t.Errorf("err = %v", err)
	}
}

// screen is a terminal for tests.
type screen struct {
	width, height int
	resize        func()
	raw, restored int
}

func (s *screen) Raw() (func() error, error) {
	s.raw++
	return func() error { s.restored++; return nil }, nil
}
func (s *screen) Size() (int, int) { return s.width, s.height }
func (s *screen) OnResize(f func()) func() {
	s.resize = f
	s.width = 100
	f()
	return func() {}
}

func TestTerminalAndSignals(t *testing.T) {
	g := startGuest(t)
	c := connect(t, g)
	term := &screen{width: 90, height: 30}
	signals := make(chan ssh.Signal, 1)
	signals <- ssh.SIGINT
	var out bytes.Buffer
	err := Run(t.Context(), c, Session{Out: &out, Terminal: term, Term: "screen", Signals: signals})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 7 || out.String() != "got INT" {
		t.Errorf("err = %v, output %q", err, out.String())
	}
	if term.raw != 1 || term.restored != 1 {
		t.Errorf("raw %d times, restored %d times", term.raw, term.restored)
	}
	for _, want := range []string{"pty-req screen", "window-change", "shell", "signal INT"} {
		if !strings.Contains(g.asked(), want) {
			t.Errorf("the machine was asked %q, not %q", g.asked(), want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	c := connect(t, startGuest(t))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := Run(ctx, c, Session{Out: io.Discard}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestQuote(t *testing.T) {
	if got, want := Quote([]string{"echo", "", "a b", "it's", "$HOME", "x=1"}), `echo '' 'a b' 'it'\''s' '$HOME' x=1`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParsePlace(t *testing.T) {
	for text, want := range map[string]Place{
		"file":             {Path: "file"},
		"./a:b":            {Path: "./a:b"},
		"dev:/etc/hosts":   {Machine: "dev", Path: "/etc/hosts"},
		"me@dev:x":         {Machine: "dev", User: "me", Path: "x"},
		"dev:":             {Machine: "dev", Path: "."},
		":x":               {Path: ":x"},
		`C:\Users\me\file`: {Machine: "C", Path: `\Users\me\file`},
	} {
		if got, err := ParsePlace(text, "linux"); got != want || err != nil {
			t.Errorf("ParsePlace(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	if got, _ := ParsePlace(`C:\x`, "windows"); got != (Place{Path: `C:\x`}) {
		t.Errorf("a drive gives %+v", got)
	}
	for _, wrong := range []string{"", "me@:x"} {
		if _, err := ParsePlace(wrong, "linux"); err == nil {
			t.Errorf("ParsePlace(%q) is no error", wrong)
		}
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// expect compares a file's text and, where there are any, its permission bits.
func expect(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
		return
	}
	info, err := os.Stat(name)
	if err != nil || string(data) != text || runtime.GOOS != "windows" && info.Mode().Perm() != mode {
		t.Errorf("%s is %q with mode %v (%v), want %q with %v", name, data, info.Mode(), err, text, mode)
	}
}

func TestCopy(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in serves Unix paths")
	}
	g := startGuest(t)
	far, closeFar, err := Guest(connect(t, g))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFar()
	here, host := t.TempDir(), Host()
	big := strings.Repeat("0123456789abcdef", 100_000)
	write(t, filepath.Join(here, "tree/a"), "one", 0o640)
	write(t, filepath.Join(here, "tree/sub/b.sh"), big, 0o755)
	if err := os.Symlink("a", filepath.Join(here, "tree/link")); err != nil {
		t.Fatal(err)
	}
	ctx, all := t.Context(), CopyOptions{Recursive: true}
	copied := func(from *Tree, source string, to *Tree, target string, o CopyOptions) {
		t.Helper()
		if err := Copy(ctx, from, source, to, target, o); err != nil {
			t.Fatal(err)
		}
	}
	// there: to a new name, and into a folder
	copied(host, filepath.Join(here, "tree"), far, "new", all)
	copied(host, filepath.Join(here, "tree"), far, "~/new", all)
	for _, dir := range []string{"new", "new/tree"} {
		expect(t, filepath.Join(g.home, dir, "a"), "one", 0o640)
		expect(t, filepath.Join(g.home, dir, "link"), "one", 0o640)
		expect(t, filepath.Join(g.home, dir, "sub/b.sh"), big, 0o755)
	}
	// back, and from machine to machine
	copied(far, "new/sub/b.sh", host, here, CopyOptions{})
	expect(t, filepath.Join(here, "b.sh"), big, 0o755)
	copied(far, "new", far, filepath.Join(g.home, "again"), all)
	expect(t, filepath.Join(g.home, "again/tree/sub/b.sh"), big, 0o755)

	for what, err := range map[string]error{
		"use -r":           Copy(ctx, host, filepath.Join(here, "tree"), far, "x", CopyOptions{}),
		"not exist":        Copy(ctx, far, "gone", host, here, CopyOptions{}),
		"no such folder":   Copy(ctx, host, filepath.Join(here, "b.sh"), far, "nowhere/", CopyOptions{}),
		`copy to "none/x"`: Copy(ctx, host, filepath.Join(here, "b.sh"), far, "none/x", CopyOptions{}),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("err = %v, want %q in it", err, what)
		}
	}
}

func TestCopyDelta(t *testing.T) {
	here, there, host := t.TempDir(), t.TempDir(), Host()
	write(t, filepath.Join(here, "a"), "one", 0o644)
	write(t, filepath.Join(here, "b"), "two", 0o644)
	var names []string
	o := CopyOptions{Recursive: true, Delta: true, File: func(name string, _ int64) { names = append(names, filepath.Base(name)) }}
	for range 2 {
		if err := Copy(t.Context(), host, here, host, there, o); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(here, "b"), "three", 0o644)
	if err := Copy(t.Context(), host, here, host, there, o); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, " "); got != "a b b" {
		t.Errorf("copied %q, want a and b once, then b", got)
	}
}

// namedFiles has one folder with one file in it, whose name is what a hostile machine says.
type namedFiles struct {
	hostFiles
	folder, name string
}

type namedInfo struct {
	fs.FileInfo
	name string
}

func (i namedInfo) Name() string { return i.name }

func (f namedFiles) ReadDir(string) ([]fs.FileInfo, error) {
	info, err := os.Stat(filepath.Join(f.folder, "file"))
	return []fs.FileInfo{namedInfo{info, f.name}}, err
}

func (f namedFiles) Stat(name string) (fs.FileInfo, error) {
	if name == f.folder {
		return os.Stat(name)
	}
	return os.Stat(filepath.Join(f.folder, "file"))
}

func (f namedFiles) Open(string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(f.folder, "file"))
}

// TestCopyStaysInItsFolder: a machine cannot name a file so that it comes to lie elsewhere on the host.
func TestCopyStaysInItsFolder(t *testing.T) {
	there := t.TempDir()
	write(t, filepath.Join(there, "file"), "evil", 0o644)
	for _, name := range []string{"../evil", "..", "a/../../evil", "/evil", ""} {
		here := filepath.Join(t.TempDir(), "target")
		from := &Tree{namedFiles{folder: there, name: name}, filepath.Join, filepath.Base, isHostName}
		err := Copy(t.Context(), from, there, Host(), here, CopyOptions{Recursive: true})
		if err == nil || !strings.Contains(err.Error(), "cannot be a file's name") {
			t.Errorf("a file named %q: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(here, "..", "evil")); err == nil {
			t.Errorf("a file named %q came to lie outside of the target", name)
		}
	}
	if runtime.GOOS == "windows" {
		for _, name := range []string{`..\evil`, `C:evil`, `NUL`, `a\b`} {
			if isHostName(name) {
				t.Errorf("%q is taken for a name", name)
			}
		}
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	here := t.TempDir()
	write(t, filepath.Join(here, "a"), "one", 0o644)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, Host(), filepath.Join(here, "a"), Host(), filepath.Join(here, "b"), CopyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}
