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
