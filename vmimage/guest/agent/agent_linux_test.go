// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// serveAgent runs an agent on the loopback and returns its address and a key that may log in.
func serveAgent(t *testing.T, control *Control) (string, ssh.Signer) {
	t.Helper()
	host, hostPEM := newKey(t)
	client, _ := newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		HostKey: hostPEM, AuthorizedKeys: ssh.MarshalAuthorizedKey(client.PublicKey()), Shell: "/bin/sh",
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}, Control: control, Log: slog.New(slog.DiscardHandler),
	}
	_ = host
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), client
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func dial(addr string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", addr, &ssh.ClientConfig{User: "root", Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second})
}

func connect(t *testing.T, control *Control) *ssh.Client {
	t.Helper()
	addr, key := serveAgent(t, control)
	c, err := dial(addr, ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOnlyKnownKeysLogIn(t *testing.T) {
	addr, key := serveAgent(t, nil)
	stranger, _ := newKey(t)
	for name, auth := range map[string][]ssh.AuthMethod{"another key": {ssh.PublicKeys(stranger)}, "a password": {ssh.Password("root")}, "nothing": nil} {
		if c, err := dial(addr, auth...); err == nil {
			c.Close()
			t.Errorf("%s logged in", name)
		}
	}
	c, err := dial(addr, ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func openSession(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestExec(t *testing.T) {
	c := connect(t, nil)
	s := openSession(t, c)
	_ = s.Setenv("LANG", "xx")
	if err := s.Setenv("LD_PRELOAD", "evil"); err == nil {
		t.Error("LD_PRELOAD was accepted")
	}
	s.Stdin = strings.NewReader("in")
	var stdout, stderr bytes.Buffer
	s.Stdout, s.Stderr = &stdout, &stderr
	err := s.Run("cat; echo $LANG; echo err >&2; exit 7")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 7 || stdout.String() != "inxx\n" || stderr.String() != "err\n" {
		t.Errorf("%v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
	s = openSession(t, c)
	if err := s.Start("sleep 100"); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 143 {
		t.Errorf("after a signal: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	s := openSession(t, connect(t, nil))
	if err := s.RequestPty("xterm", 33, 101, nil); err != nil {
		t.Fatal(err)
	}
	out, err := s.CombinedOutput("test -t 0 && stty size && echo $TERM")
	if err != nil || !strings.Contains(string(out), "33 101") || !strings.Contains(string(out), "xterm") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestClientGoneEndsProgram(t *testing.T) {
	// Under nohup SIGHUP is ignored, and a shell cannot trap what it was started with ignored. A handler here gives children the default back.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	c := connect(t, nil)
	s := openSession(t, c)
	file := filepath.Join(t.TempDir(), "ended")
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("trap 'echo > " + file + "; exit' HUP; echo ready; while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program runs on")
		}
	}
}

func TestSFTP(t *testing.T) {
	c, err := sftp.NewClient(connect(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	name := filepath.Join(t.TempDir(), "file")
	f, err := c.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write([]byte("hello"))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		data, _ := io.ReadAll(conn) // ends when the client has closed its half only
		_, _ = conn.Write(append([]byte("got "), data...))
	}()
	c := connect(t, nil)
	conn, err := c.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("ping"))
	if err := errors.Join(err, conn.(interface{ CloseWrite() error }).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "got ping" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Dial("unix", path+"-not-there"); err == nil {
		t.Error("a socket that is not there was reached")
	}
}

func TestControl(t *testing.T) {
	dir := t.TempDir()
	powered := make(chan bool, 1)
	control := &Control{
		Program: "guest", StatusFile: filepath.Join(dir, "status"), LogDir: dir, DataDir: dir, Docker: filepath.Join(dir, "docker.sock"),
		Power: func(reboot bool) error { powered <- reboot; return nil },
		Mount: func(m proto.Mount) error { return m.Validate() },
	}
	err := errors.Join(
		os.WriteFile(control.StatusFile, []byte(`{"stages":[{"name":"network","seconds":1.5}],"problems":["no data"]}`), 0o644),
		os.WriteFile(filepath.Join(dir, "boot.log"), []byte("first\nlast\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	s := openSession(t, connect(t, control))
	in, err1 := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err1, err2, s.RequestSubsystem(proto.Subsystem)); err != nil {
		t.Fatal(err)
	}
	c, err := proto.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in}, "host")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	var info proto.Info
	if err := c.Call(ctx, proto.MethodInfo, nil, &info); err != nil || len(info.Status.Stages) != 1 || info.CPUs == 0 {
		t.Errorf("info %+v, %v", info, err)
	}
	var health proto.Health
	if err := c.Call(ctx, proto.MethodHealth, nil, &health); err != nil || health.OK || health.Engine || len(health.Problems) == 0 {
		t.Errorf("health %+v, %v", health, err)
	}
	var logs proto.Logs
	if err := c.Call(ctx, proto.MethodLogs, proto.LogsRequest{Name: "boot", Tail: 5}, &logs); err != nil || logs.Text != "last\n" {
		t.Errorf("logs %q, %v", logs.Text, err)
	}
	var ports []proto.Port
	if err := c.Call(ctx, proto.MethodPorts, nil, &ports); err != nil || len(ports) == 0 {
		t.Errorf("ports %v, %v", ports, err)
	}
	for name, call := range map[string]error{
		"a log by path":  c.Call(ctx, proto.MethodLogs, proto.LogsRequest{Name: "../../etc/passwd"}, nil),
		"an old time":    c.Call(ctx, proto.MethodSetTime, proto.SetTime{}, nil),
		"a mount on /":   c.Call(ctx, proto.MethodMount, proto.Mount{Source: "x", Target: "/", Type: "tmpfs"}, nil),
		"an unmount /":   c.Call(ctx, proto.MethodUnmount, proto.Unmount{Target: "/"}, nil),
		"a new request":  c.Call(ctx, "fly", nil, nil),
		"bad parameters": c.Call(ctx, proto.MethodLogs, []int{1}, nil),
	} {
		var e *proto.Error
		if !errors.As(call, &e) {
			t.Errorf("%s: %v, want a refusal", name, call)
		}
	}
	if err := c.Call(ctx, proto.MethodPowerOff, nil, nil); err != nil || <-powered {
		t.Errorf("power off: %v", err)
	}
}

func TestListening(t *testing.T) {
	dir := t.TempDir()
	table := "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:1F91 0100007F:9999 01 0\n"
	table6 := "  sl  local_address rem_address   st\n   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "tcp"), []byte(table), 0o644), os.WriteFile(filepath.Join(dir, "tcp6"), []byte(table6), 0o644)); err != nil {
		t.Fatal(err)
	}
	got, err := listening(dir)
	want := []proto.Port{{Protocol: "tcp", Address: "127.0.0.1", Port: 8080}, {Protocol: "tcp", Address: "::1", Port: 80}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// TestKeyAgent: programs in the machine reach the SSH agent of whoever connected last, for as long as that connection is there.
func TestKeyAgent(t *testing.T) {
	host, hostPEM := newKey(t)
	_ = host
	login, _ := newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "a", "s")
	s := &Server{HostKey: hostPEM, AuthorizedKeys: ssh.MarshalAuthorizedKey(login.PublicKey()), Shell: "/bin/sh", AgentSocket: socket, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	offer := func(comment string) *ssh.Client {
		c, err := dial(l.Addr().String(), ssh.PublicKeys(login))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ring := agent.NewKeyring()
		if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: comment}); err != nil {
			t.Fatal(err)
		}
		if err := agent.ForwardToAgent(c, ring); err != nil {
			t.Fatal(err)
		}
		x := openSession(t, c)
		if err := agent.RequestAgentForwarding(x); err != nil {
			t.Fatal(err)
		}
		out, err := x.Output("echo $SSH_AUTH_SOCK")
		if got := strings.TrimSpace(string(out)); err != nil || got != socket {
			t.Fatalf("the session's agent is %q, %v; want %q", got, err, socket)
		}
		return c
	}
	first := offer("first")
	if got := keyComments(socket); got != "first" {
		t.Errorf("with one agent: %q", got)
	}
	second := offer("second")
	if got := keyComments(socket); got != "second" {
		t.Errorf("with a newer agent: %q", got)
	}
	second.Close()
	for keyComments(socket) != "first" { // until the machine has noticed that the second is gone
		continue
	}
	first.Close()
	for keyComments(socket) != "" {
		continue
	}
}

// keyComments lists the keys that an SSH agent offers; nothing where there is none.
func keyComments(socket string) string {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return ""
	}
	defer conn.Close()
	keys, err := agent.NewClient(conn).List()
	if err != nil {
		return ""
	}
	var names []string
	for _, k := range keys {
		names = append(names, k.Comment)
	}
	return strings.Join(names, " ")
}

// TestRenew: other keys let in from now on, and those from before do not; who is in stays.
func TestRenew(t *testing.T) {
	_, hostPEM := newKey(t)
	before, _ := newKey(t)
	after, _ := newKey(t)
	host, newPEM := newKey(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{HostKey: hostPEM, AuthorizedKeys: ssh.MarshalAuthorizedKey(before.PublicKey()), Shell: "/bin/sh", Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() { cancel(); <-done }()
	in, err := dial(l.Addr().String(), ssh.PublicKeys(before))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := s.Renew([]byte("no key"), nil, nil); err == nil {
		t.Error("a key that is none is taken")
	}
	if err := s.Renew(newPEM, ssh.MarshalAuthorizedKey(after.PublicKey()), []string{"WHO=new"}); err != nil {
		t.Fatal(err)
	}
	if c, err := dial(l.Addr().String(), ssh.PublicKeys(before)); err == nil {
		c.Close()
		t.Error("an old key lets in")
	}
	c, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(after)}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, client := range map[string]*ssh.Client{"who was in": in, "who came after": c} {
		out, err := openSession(t, client).Output("echo $WHO")
		if err != nil || string(out) != "new\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestFreezeAndThawAreAsked: without what they do, the host learns that this machine cannot.
func TestFreezeAndThawAreAsked(t *testing.T) {
	var thawed proto.AfterRestore
	frozen := false
	c := &Control{
		Freeze: func() error { frozen = true; return nil },
		Thaw: func(p proto.AfterRestore) (proto.AfterRestored, error) {
			thawed = p
			return proto.AfterRestored{Warnings: []string{"w"}}, nil
		},
	}
	request := func(c *Control, method string, params string) proto.Response {
		return c.answer(t.Context(), proto.Request{ID: 1, Method: method, Params: []byte(params)})
	}
	if r := request(c, proto.MethodFreeze, ""); r.Error != nil || !frozen {
		t.Errorf("freeze: %+v", r.Error)
	}
	r := request(c, proto.MethodThaw, `{"time":"2026-01-01T00:00:00Z","seed":{"hostname":"box"}}`)
	if r.Error != nil || thawed.Seed == nil || thawed.Seed.Hostname != "box" || !strings.Contains(string(r.Result), `"w"`) {
		t.Errorf("thaw: %+v, %s, %+v", r.Error, r.Result, thawed)
	}
	for _, method := range []string{proto.MethodFreeze, proto.MethodThaw} {
		if r := request(&Control{}, method, "{}"); r.Error == nil || r.Error.Code != proto.CodeUnknown {
			t.Errorf("%s of a machine that cannot: %+v", method, r.Error)
		}
	}
}
