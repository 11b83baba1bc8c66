// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAnswerStream(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct {
		asked, said string
		idle        bool
	}{
		"nothing":               {"", "", true},
		"asked":                 {"GET / HTTP/1.1\r\n", "", false},
		"no body":               {"POST /", "HTTP/1.1 204 No Content\r\n\r\n", true},
		"empty body":            {"GET /", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		"whole body":            {"GET /", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true},
		"part of a body":        {"GET /", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", false},
		"part of a head":        {"GET /", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", false},
		"only the head":         {"HEAD /_ping", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true},
		"chunks":                {"GET /", chunked + "5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n", true},
		"chunks with a trailer": {"GET /", chunked + "1\r\nx\r\n0\r\nDigest: y\r\n\r\n", true},
		"a stream":              {"GET /events", chunked + "5\r\nhello\r\n", false},
		"a stream of ends":      {"GET /logs", chunked + "5\r\n0\r\n\r\n\r\n", false},
		"hijacked":              {"POST /attach", "HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n", false},
		"until it closes":       {"GET /", "HTTP/1.1 200 OK\r\n\r\nhello", false},
		"still to come":         {"POST /", "HTTP/1.1 100 Continue\r\n\r\n", false},
		"come":                  {"POST /", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
		"not HTTP":              {"SSH", "SSH-2.0-x\r\n\r\n", false},
		"an endless head":       {"GET /", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead), false},
		"a wrong size":          {"GET /", chunked + "-5\r\nhello\r\n0\r\n\r\n", false},
		"two answers":           {"GET /", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\n\r\n", true},
	} {
		for _, step := range []int{1, 3, 1 << 20} { // however it is cut
			var a answerStream
			if c.asked != "" {
				a.asked([]byte(c.asked))
			}
			for rest := []byte(c.said); len(rest) > 0; {
				n := min(step, len(rest))
				a.read(rest[:n])
				rest = rest[n:]
			}
			if a.idle() != c.idle {
				t.Errorf("%s, by %d bytes: idle %v", name, step, a.idle())
			}
			if len(a.line) > maxHead {
				t.Errorf("%s: %d bytes are kept", name, len(a.line))
			}
		}
	}
}

// FuzzAnswerStream: whatever a guest says, little is kept of it, and how it is cut does not matter.
func FuzzAnswerStream(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 3)
	f.Add([]byte("HTTP/1.1 101 UPGRADED\r\n\r\nbytes"), 1)
	f.Fuzz(func(t *testing.T, said []byte, step int) {
		if step < 1 {
			step = 1
		}
		var whole, parts answerStream
		whole.asked([]byte("GET /"))
		parts.asked([]byte("GET /"))
		whole.read(said)
		for rest := said; len(rest) > 0; {
			n := min(step, len(rest))
			parts.read(rest[:n])
			rest = rest[n:]
		}
		if len(said) < maxHead && whole.idle() != parts.idle() {
			t.Errorf("idle %v, in parts %v", whole.idle(), parts.idle())
		}
		if len(whole.line) > 2*maxHead {
			t.Errorf("%d bytes are kept", len(whole.line))
		}
	})
}

func TestAPIConnUsesTheMachine(t *testing.T) {
	g := newGate()
	g.set(reachEngine, nil)
	v, err := g.pass(t.Context(), reachEngine)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	c := &apiConn{Conn: here, visit: v}
	inside := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.inside
	}
	go func() { _, _ = io.ReadFull(there, make([]byte, 5)) }()
	if _, err := c.Write([]byte("GET /")); err != nil || inside() != 1 {
		t.Fatalf("asked: %v, %d inside", err, inside())
	}
	go func() { _, _ = io.WriteString(there, "HTTP/1.1 204 No Content\r\n\r\n") }()
	for buf := make([]byte, 64); inside() == 1; {
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if !g.closeIfQuiet() {
		t.Error("a connection that wants nothing keeps the machine awake")
	}
	v.end()
	v.end()
	if inside() != 0 {
		t.Errorf("%d inside", inside())
	}
}

func TestGate(t *testing.T) {
	g := newGate()
	ctx, cancel := context.WithCancelCause(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := g.pass(ctx, reachGuest)
		waited <- err
	}()
	<-g.wake // it asks for being woken
	if g.closeIfQuiet() {
		t.Error("somebody waits, and the gate closes")
	}
	gone := errors.New("gone")
	cancel(gone)
	if err := <-waited; !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	if g.tryPass(reachGuest) != nil || g.passAwake(reachGuest) != nil {
		t.Error("a closed gate lets in")
	}
	g.set(reachGuest, nil)
	if g.tryPass(reachEngine) != nil {
		t.Error("a gate lets in farther than it is open")
	}
	v := g.tryPass(reachGuest)
	if v == nil || g.closeIfQuiet() || time.Since(g.quietSince()) > time.Minute {
		t.Error("who is inside does not count")
	}
	v.end()
	if !g.closeIfQuiet() {
		t.Error("nobody is inside, and the gate does not close")
	}
	why := errors.New("suspended")
	g.set(reachNone, why)
	if _, err := g.pass(t.Context(), reachGuest); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestBoundedLines(t *testing.T) {
	line := strings.Repeat("x", maxEvent-1) + "\n"
	b := &boundedLines{ReadCloser: io.NopCloser(strings.NewReader(line + line + line)), left: maxEvent}
	if n, err := io.Copy(io.Discard, b); err != nil || n != 3*maxEvent {
		t.Errorf("%d bytes, %v", n, err)
	}
	b = &boundedLines{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", 3*maxEvent))), left: maxEvent}
	if n, err := io.Copy(io.Discard, b); err == nil || n > 2*maxEvent {
		t.Errorf("%d bytes, %v", n, err)
	}
}
