// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// TestFast: a service is a socket of the machine's, each direction ends by itself, and a new secret counts from the next connection on.
func TestFast(t *testing.T) {
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "docker.sock"), filepath.Join(dir, "secret")
	echo, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				data, _ := io.ReadAll(c)
				_, _ = c.Write(bytes.ToUpper(data))
			}()
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &Fast{SecretFile: file, Log: slog.New(slog.DiscardHandler), Services: map[string]func(context.Context, net.Conn, string){proto.FastDocker: FastSocket(socket)}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	open := func(secret []byte, service string) (*net.TCPConn, error) {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn), proto.FastDial(c, secret, service)
	}
	one, two := bytes.Repeat([]byte{1}, proto.FastSecretSize), bytes.Repeat([]byte{2}, proto.FastSecretSize)
	if _, err := open(one, proto.FastDocker); err == nil {
		t.Error("a machine without a secret let somebody in")
	}
	for _, secret := range [][]byte{one, two} {
		if err := os.WriteFile(file, secret, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := open(secret, proto.FastDocker)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("bytes")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "BYTES" {
			t.Errorf("the socket answered %q, %v", got, err)
		}
	}
	if _, err := open(one, proto.FastDocker); err == nil {
		t.Error("the old secret still lets in")
	}
	var refusal *proto.FastError
	if _, err := open(two, "nothing"); !errors.As(err, &refusal) {
		t.Errorf("an unknown service: %v", err)
	}
}

// TestFastPlaces: who says nothing takes no place from others: one address has only some of them, and what does not come in by the machine's card none.
func TestFastPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	secret := bytes.Repeat([]byte{1}, proto.FastSecretSize)
	if err := os.WriteFile(file, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &Fast{SecretFile: file, Log: slog.New(slog.DiscardHandler), Services: map[string]func(context.Context, net.Conn, string){
		"yes": func(_ context.Context, conn net.Conn, _ string) { _ = proto.FastReply(conn, nil) },
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for range 2 * maxFastSource {
		dial("127.0.0.2")
	}
	if err := proto.FastDial(dial("127.0.0.3"), secret, "yes"); err != nil {
		t.Errorf("somebody who says nothing holds the places of others: %v", err)
	}
}

// TestListenOnCard: a port that is served by one card is closed to what comes by another, as containers do.
func TestListenOnCard(t *testing.T) {
	port := func(l net.Listener) string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }
	lo, err := Listen(t.Context(), "lo", 0)
	if err != nil {
		t.Skipf("a port cannot be bound to a card: %v", err)
	}
	defer lo.Close()
	c, err := net.Dial("tcp4", "127.0.0.1:"+port(lo))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cards, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(cards, func(c net.Interface) bool { return c.Flags&net.FlagLoopback == 0 })
	if i < 0 {
		t.Skip("there is no other card")
	}
	other, err := Listen(t.Context(), cards[i].Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if c, err := net.Dial("tcp4", "127.0.0.1:"+port(other)); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("what came by another card: %v", err)
	}
}
