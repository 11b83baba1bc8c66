// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

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

// fastHandshake bounds a handshake, under emulation and while the machine boots.
const fastHandshake = 30 * time.Second

// Serve accepts connections until ctx ends or the listener fails, and waits for what runs on them.
func (f *Fast) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	pending := make(chan struct{}, maxPending)
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
		select {
		case pending <- struct{}{}:
		default:
			conn.Close() // somebody knocks too often
			continue
		}
		wg.Go(func() { f.serve(ctx, conn, func() { <-pending }) })
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
	_ = conn.SetDeadline(time.Now().Add(fastHandshake)) // a connection without deadlines is a test's
	secret, err := os.ReadFile(f.SecretFile)
	var service string
	if err == nil {
		service, err = proto.FastAccept(conn, secret)
	}
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
