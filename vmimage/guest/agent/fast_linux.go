// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Fast serves the fast link (package proto). Set the fields, then Serve.
type Fast struct {
	// SecretFile holds the machine's secret. It is read for each connection: a restored machine has a new one.
	SecretFile string
	// Services are the services by name. A service answers with proto.FastReply, owns the connection, and returns when it is done with it; argument is
	// what the host wrote after the name.
	Services map[string]func(ctx context.Context, conn net.Conn, argument string)
	Log      *slog.Logger
}

const (
	// fastHandshake bounds a handshake, under emulation and while the machine boots; a host says its first word at once, within fastHello.
	fastHandshake = 30 * time.Second
	fastHello     = 10 * time.Second
	// maxFastPending bounds handshakes under way, and maxFastSource those of one address.
	maxFastPending = 128
	maxFastSource  = 64
)

// Listen listens at a TCP port for connections that come in by a network card: what containers send does not, whatever address they send it to, and finds
// nobody there. Without a card all are let in.
func Listen(ctx context.Context, card string, port int) (net.Listener, error) {
	var c net.ListenConfig
	if card != "" {
		c.Control = func(_, _ string, conn syscall.RawConn) (err error) {
			return errors.Join(conn.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), card) }), err)
		}
	}
	l, err := c.Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("listen at network card %q: %w", card, err)
	}
	return l, nil
}

// places bound connections that have not proved who they are.
type places struct {
	mu   sync.Mutex
	all  int
	from map[string]int
}

// take takes a place for a connection, unless there are too many, or too many from where it comes. The function it returns gives it back.
func (p *places) take(conn net.Conn) (give func(), ok bool) {
	source := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(source); err == nil {
		source = host
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= maxFastPending || p.from[source] >= maxFastSource {
		return nil, false
	}
	p.all++
	p.from[source]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.from[source]--; p.from[source] == 0 {
			delete(p.from, source)
		}
	}, true
}

// Serve accepts connections until ctx ends or the listener fails, and waits for what runs on them.
func (f *Fast) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	pending := &places{from: map[string]int{}}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept links: %w", err)
		}
		give, ok := pending.take(conn)
		if !ok {
			conn.Close() // somebody knocks too often
			continue
		}
		wg.Go(func() { f.serve(ctx, conn, give) })
	}
}

// serve authenticates one connection and hands it to its service. authenticated is called when it is through with the first part.
func (f *Fast) serve(ctx context.Context, conn net.Conn, authenticated func()) {
	defer conn.Close()
	defer func() {
		if p := recover(); p != nil {
			f.Log.Error("a link failed", "panic", p)
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	service, err := f.accept(conn)
	authenticated()
	if err != nil {
		f.Log.Debug("a link was refused", "from", conn.RemoteAddr().String(), "error", err)
		return
	}
	name, argument, _ := strings.Cut(service, " ")
	serve := f.Services[name]
	if serve == nil {
		_ = proto.FastReply(conn, fmt.Errorf("this machine's image does not know the service %q: upgrade it", name)) // the host may be gone
		return
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serve(ctx, conn, argument)
}

// accept lets the host prove who it is, and returns the service that it asks for.
func (f *Fast) accept(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(fastHello)) // a connection without deadlines is a test's
	secret, err := os.ReadFile(f.SecretFile)
	if err != nil {
		return "", err
	}
	return proto.FastAccept(&greeted{Conn: conn}, secret)
}

// greeted is a connection that gets more time once the other side has said something.
type greeted struct {
	net.Conn
	spoken bool
}

func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 && !g.spoken {
		g.spoken = true
		_ = g.SetDeadline(time.Now().Add(fastHandshake))
	}
	return n, err
}

// FastSocket is a service that is a unix socket in the machine.
func FastSocket(path string) func(context.Context, net.Conn, string) {
	return func(ctx context.Context, conn net.Conn, _ string) {
		var d net.Dialer
		to, err := d.DialContext(ctx, "unix", path)
		if replyErr := proto.FastReply(conn, err); err != nil || replyErr != nil {
			if err == nil {
				to.Close()
			}
			return
		}
		joinConns(ctx, conn, to)
	}
}

// FastControl is the service that answers control requests.
func FastControl(c *Control) func(context.Context, net.Conn, string) {
	return func(ctx context.Context, conn net.Conn, _ string) {
		if proto.FastReply(conn, nil) == nil {
			_ = c.Serve(ctx, conn) // the host ends it
		}
	}
}

// joinConns carries bytes between two connections until both directions have ended or ctx has, and closes the second; the first is its owner's.
func joinConns(ctx context.Context, a, b net.Conn) {
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { b.Close() })
	defer stop()
	var wg sync.WaitGroup
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either end may go away at any time
		if h, ok := to.(halfCloser); ok {
			_ = h.CloseWrite()
		}
	}
	wg.Go(func() { carry(b, a) })
	wg.Go(func() { carry(a, b) })
	wg.Wait()
}
