// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// guest is a machine's end of a share that sends what the test wants.
type guest struct {
	t    *testing.T
	conn net.Conn
	next uint64
}

// greeted serves a folder to a guest.
func greeted(t *testing.T, o Options) *guest {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), there) }()
	t.Cleanup(func() {
		if err := errors.Join(here.Close(), <-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	hello := wire.Hello{Version: wire.Version, Session: [16]byte{1}}
	if _, err := here.Write(hello.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(here, make([]byte, wire.WelcomeSize)); err != nil {
		t.Fatal(err)
	}
	return &guest{t: t, conn: here}
}

// send sends requests together, and returns their numbers.
func (g *guest) send(requests ...wire.Request) []uint64 {
	g.t.Helper()
	var frames []byte
	var ids []uint64
	for i := range requests {
		g.next++
		requests[i].ID = g.next
		ids = append(ids, g.next)
		frames = requests[i].Append(frames)
	}
	if _, err := g.conn.Write(frames); err != nil {
		g.t.Error(err)
	}
	return ids
}

func (g *guest) receive() wire.Response {
	g.t.Helper()
	body, err := wire.ReadFrame(g.conn, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := wire.ParseResponse(body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

// ask sends one request and returns its answer.
func (g *guest) ask(r wire.Request) wire.Response {
	g.t.Helper()
	g.send(r)
	return g.receive()
}

// do is ask for what must work.
func (g *guest) do(r wire.Request) wire.Response {
	g.t.Helper()
	res := g.ask(r)
	if res.Errno != 0 {
		g.t.Fatalf("operation %d of %q %q: error %d", r.Op, r.Path, r.Name, res.Errno)
	}
	return res
}

// TestWrittenProgramsRunOnTheHost: what the guest has written can be run on the host as soon as the writes are answered, also when they came in one go.
func TestWrittenProgramsRunOnTheHost(t *testing.T) {
	self, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := greeted(t, Options{Folder: dir})
	run := func(what string) {
		t.Helper()
		if err := exec.CommandContext(t.Context(), dir+"/program").Run(); err != nil { //nolint:gosec // the test's own
			t.Errorf("after %s: %v", what, err)
		}
	}
	half := len(program) / 2
	made := g.do(wire.Request{Op: wire.OpCreate, Name: "program", Mode: 0o755, Data: program})
	ident := made.Attr.Ident
	run("making it")
	for range 20 {
		go g.send(
			wire.Request{Op: wire.OpWrite, Path: "program", Ident: ident, Data: program[:half]},
			wire.Request{Op: wire.OpWrite, Path: "program", Ident: ident, Offset: uint64(half), Data: program[half:]},
			wire.Request{Op: wire.OpFsync, Path: "program", Ident: ident},
		)
		for range 3 {
			if res := g.receive(); res.Errno != 0 {
				t.Fatalf("request %d: error %d", res.ID, res.Errno)
			}
		}
		run("writing it")
	}
	g.do(wire.Request{Op: wire.OpSetattr, Path: "program", Ident: ident, Valid: wire.SetSize, Size: uint64(len(program))})
	run("truncating it")
}

// TestRunningProgramsStay: what runs on the host is not overwritten, as on a disk of the machine's own, and can be replaced.
func TestRunningProgramsStay(t *testing.T) {
	self, err := exec.LookPath("cat")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(self)
	dir := t.TempDir()
	if err := errors.Join(err, os.WriteFile(dir+"/program", program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), dir+"/program")
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), cmd.Wait()) }()
	g := greeted(t, Options{Folder: dir})
	ident := g.do(wire.Request{Op: wire.OpLookup, Name: "program"}).Attr.Ident
	for _, r := range []wire.Request{
		{Op: wire.OpWrite, Path: "program", Ident: ident, Data: []byte("x")},
		{Op: wire.OpSetattr, Path: "program", Ident: ident, Valid: wire.SetSize},
	} {
		if res := g.ask(r); res.Errno != wire.ETXTBSY {
			t.Errorf("operation %d on a program that runs: error %d", r.Op, res.Errno)
		}
	}
	g.do(wire.Request{Op: wire.OpCreate, Name: "new", Mode: 0o755, Data: []byte("other")})
	g.do(wire.Request{Op: wire.OpRename, Name: "new", Name2: "program"})
	if got, err := os.ReadFile(dir + "/program"); err != nil || string(got) != "other" {
		t.Errorf("the new program is %q, %v", got, err)
	}
}
