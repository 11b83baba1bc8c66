// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"

	"github.com/seed71221737/dev/compose"
)

// message is one message of a multiplexed stream.
func message(stream byte, text string) []byte {
	header := make([]byte, 8)
	header[0] = stream
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return append(header, text...)
}

// upgrade takes over the connection as engines do, and hands it to f.
func upgrade(w http.ResponseWriter, f func(net.Conn, io.Reader)) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	f(conn, buf)
}

// executes has the fake run commands with f, which end with code.
func executes(f *fake, code int, run func(net.Conn, io.Reader)) *container.ExecCreateRequest {
	req := &container.ExecCreateRequest{}
	f.on("POST /containers/x/exec", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(req)
		answer(w, 201, container.ExecCreateResponse{ID: "e"})
	})
	f.on("POST /exec/e/start", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		upgrade(w, run)
	})
	f.reply("GET /exec/e/json", 200, container.ExecInspectResponse{ID: "e", ExitCode: &code})
	return req
}

func TestExec(t *testing.T) {
	f := newFake(t)
	req := executes(f, 3, func(conn net.Conn, in io.Reader) {
		typed, _ := io.ReadAll(in) // ends with the half-close
		_, _ = conn.Write(message(1, "typed "+string(typed)))
		_, _ = conn.Write(message(2, "oops"))
	})
	var out, errOut bytes.Buffer
	err := f.client().Exec(t.Context(), "x", ExecOptions{
		Command: []string{"sh", "-c", "cat"}, User: "me", Env: []string{"A=1"}, WorkingDir: "/w", Privileged: true,
		Streams: Streams{In: strings.NewReader("abc"), Out: &out, Err: &errOut},
	})
	if e, ok := errors.AsType[*ExitError](err); !ok || e.ExitCode() != 3 || !e.Silent() {
		t.Errorf("got %v", err)
	}
	if out.String() != "typed abc" || errOut.String() != "oops" {
		t.Errorf("out %q, err %q", &out, &errOut)
	}
	if fmt.Sprintf("%v %v %v %v %v %v %v", req.Cmd, req.User, req.Env, req.WorkingDir, req.Privileged, req.AttachStdin, req.Tty) != "[sh -c cat] me [A=1] /w true true false" {
		t.Errorf("asked for %+v", req)
	}
}

func TestExecDetached(t *testing.T) {
	f := newFake(t)
	req := executes(f, 0, nil)
	f.mux = http.NewServeMux()
	f.on("HEAD /_ping", func(http.ResponseWriter, *http.Request) {})
	f.on("POST /containers/x/exec", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(req)
		answer(w, 201, container.ExecCreateResponse{ID: "e"})
	})
	f.reply("POST /exec/e/start", 200, nil)
	err := f.client().Exec(t.Context(), "x", ExecOptions{Command: []string{"true"}, Detach: true, Streams: Streams{In: strings.NewReader("x")}})
	if err != nil || req.AttachStdin || req.AttachStdout {
		t.Errorf("got %v, asked for %+v", err, req)
	}
}

func TestExecInAStoppedContainer(t *testing.T) {
	f := newFake(t)
	f.reply("POST /containers/x/exec", 409, "container x is not running")
	err := f.client().Exec(t.Context(), "x", ExecOptions{Command: []string{"true"}})
	if err == nil || err.Error() != "container x is not running" {
		t.Errorf("got %v", err)
	}
}

// terminal is a fake terminal.
type terminal struct {
	mu       sync.Mutex
	w, h     int
	resized  func()
	raw      bool
	restored bool
}

func (m *terminal) Raw() (func() error, error) {
	m.raw = true
	return func() error { m.restored = true; return nil }, nil
}

func (m *terminal) Size() (int, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.w, m.h
}

func (m *terminal) OnResize(f func()) func() {
	m.resized = f
	return func() { m.resized = nil }
}

func TestExecWithATerminal(t *testing.T) {
	f := newFake(t)
	sizes, end := make(chan string, 10), make(chan struct{})
	req := executes(f, 0, func(conn net.Conn, _ io.Reader) {
		_, _ = io.WriteString(conn, "raw \x01 output")
		<-end
	})
	f.on("POST /exec/e/resize", func(_ http.ResponseWriter, r *http.Request) {
		sizes <- r.URL.Query().Get("w") + "x" + r.URL.Query().Get("h")
	})
	m := &terminal{w: 100, h: 30}
	in, typing := io.Pipe()
	defer func() { _ = typing.Close() }()
	var out bytes.Buffer
	done := make(chan error, 1)
	c := f.client()
	go func() {
		done <- c.Exec(t.Context(), "x", ExecOptions{Command: []string{"sh"}, TTY: true, Streams: Streams{In: in, Out: &out, Terminal: m}})
	}()
	if got := <-sizes; got != "100x30" {
		t.Errorf("first size %s", got)
	}
	m.mu.Lock()
	m.w = 120
	m.mu.Unlock()
	m.resized()
	if got := <-sizes; got != "120x30" {
		t.Errorf("second size %s", got)
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if out.String() != "raw \x01 output" || !m.raw || !m.restored || m.resized != nil {
		t.Errorf("out %q, terminal %+v", &out, m)
	}
	if req.ConsoleSize == nil || *req.ConsoleSize != [2]uint{30, 100} || !req.Tty {
		t.Errorf("asked for %+v", req)
	}
}

func TestDetachKeys(t *testing.T) {
	for name, tt := range map[string]struct {
		streams Streams
		config  string
		keys    string
	}{
		"usual":         {Streams{}, `{}`, "\x10\x11"},
		"option":        {Streams{DetachKeys: "ctrl-a,q"}, `{"detachKeys": "x"}`, "\x01q"},
		"configuration": {Streams{}, `{"detachKeys": "ctrl-z"}`, "\x1a"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var got bytes.Buffer
			executes(f, 0, func(_ net.Conn, in io.Reader) { _, _ = io.Copy(&got, in) })
			f.reply("POST /exec/e/resize", 200, nil)
			c := openClient(t, Options{Host: f.host, ConfigDir: dockerConfig(t, tt.config)})
			m := &terminal{w: 1, h: 1}
			tt.streams.In, tt.streams.Terminal = strings.NewReader("abc"+tt.keys+"def"), m
			err := c.Exec(t.Context(), "x", ExecOptions{Command: []string{"sh"}, TTY: true, Streams: tt.streams})
			if !errors.Is(err, ErrDetached) || !m.restored {
				t.Errorf("got %v, terminal %+v", err, m)
			}
		})
	}
	f := newFake(t)
	err := f.client().Exec(t.Context(), "x", ExecOptions{Streams: Streams{DetachKeys: "hyper-x"}})
	if err == nil || !strings.Contains(err.Error(), `"hyper-x"`) {
		t.Errorf("got %v", err)
	}
}

func attachable(f *fake, state *container.State, cfg *container.Config, run func(net.Conn, io.Reader)) {
	f.reply("GET /containers/x/json", 200, container.InspectResponse{ID: "x", Name: "/x", State: state, Config: cfg})
	f.on("POST /containers/x/attach", func(w http.ResponseWriter, _ *http.Request) { upgrade(w, run) })
}

func TestRunAttachesBeforeItStarts(t *testing.T) {
	f := newFake(t)
	begun := make(chan struct{})
	attachable(f, &container.State{Status: container.StateCreated}, &container.Config{OpenStdin: true}, func(conn net.Conn, in io.Reader) {
		<-begun
		typed, _ := io.ReadAll(in)
		_, _ = conn.Write(message(1, "got "+string(typed)))
	})
	f.on("POST /containers/x/start", func(w http.ResponseWriter, _ *http.Request) {
		if f.count("POST /containers/x/attach") != 1 || f.count("POST /containers/x/wait") != 1 {
			t.Errorf("started before it was attached to and waited for: %q", f.called())
		}
		close(begun)
		w.WriteHeader(204)
	})
	f.reply("POST /containers/x/wait", 200, container.WaitResponse{StatusCode: 4})
	var out bytes.Buffer
	err := f.client().Run(t.Context(), "x", Streams{In: strings.NewReader("in"), Out: &out})
	if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 4 || out.String() != "got in" {
		t.Errorf("got %v, out %q", err, &out)
	}
}

func TestRunThatCannotStart(t *testing.T) {
	f := newFake(t)
	attachable(f, &container.State{Status: container.StateCreated}, &container.Config{}, func(_ net.Conn, in io.Reader) { _, _ = io.ReadAll(in) })
	f.reply("POST /containers/x/start", 400, `exec: "nonsense": executable file not found in $PATH`)
	f.on("POST /containers/x/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	err := f.client().Run(t.Context(), "x", Streams{})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}

func TestAttachNeedsARunningContainer(t *testing.T) {
	f := newFake(t)
	attachable(f, exited(0), &container.Config{Labels: labels("app", "web")}, nil)
	err := f.client().Attach(t.Context(), "x", Streams{})
	if err == nil || err.Error() != `container "x" does not run` || hintOf(err) != "dev start web" {
		t.Errorf("got %v", err)
	}
}

func hookOp(command ...string) compose.Op {
	value := "1"
	return compose.Op{Kind: compose.OpRunHook, Ref: onX, Hook: &types.ServiceHook{
		Command: command, User: "root", Environment: types.MappingWithEquals{"A": &value, "B": nil},
	}}
}

func TestRunHook(t *testing.T) {
	f := newFake(t)
	req := executes(f, 0, func(conn net.Conn, _ io.Reader) {
		_, _ = conn.Write(message(1, "one\ntw"))
		_, _ = conn.Write(message(1, "o\n"))
	})
	_, told, err := do(t, f.client(), hookOp("migrate"), nil)
	if err != nil || len(told) != 2 || told[0].Text != "one" || told[1].Text != "two" {
		t.Errorf("got %v, told %+v", err, told)
	}
	if req.User != "root" || fmt.Sprint(req.Env) != "[A=1]" {
		t.Errorf("asked for %+v", req)
	}
}

func TestRunHookThatFails(t *testing.T) {
	f := newFake(t)
	executes(f, 9, func(conn net.Conn, _ io.Reader) {
		for range 1000 {
			_, _ = conn.Write(message(2, "noise noise noise\n"))
		}
		_, _ = conn.Write(message(2, "table missing\n"))
	})
	_, _, err := do(t, f.client(), hookOp("migrate", "up"), nil)
	e, ok := errors.AsType[*HookError](err)
	if !ok || e.Code != 9 || !strings.HasPrefix(e.Error(), `command "migrate up" exited with 9: `) || !strings.HasSuffix(e.Error(), "table missing") {
		t.Errorf("got %.100v", err)
	}
	if ok && len(e.Output) > hookOutput {
		t.Errorf("kept %d bytes", len(e.Output))
	}
}
