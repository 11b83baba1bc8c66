// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
)

// Settled is a service whose answers come after what programs have written to shares before: who hears that a container has ended finds its files. settle waits
// for that.
func Settled(settle func(), serve func(context.Context, net.Conn, string)) func(context.Context, net.Conn, string) {
	return func(ctx context.Context, conn net.Conn, argument string) {
		serve(ctx, settledConn{conn, settle}, argument)
	}
}

// settledConn settles before each write.
type settledConn struct {
	net.Conn
	settle func()
}

func (c settledConn) Write(p []byte) (int, error) {
	c.settle()
	return c.Conn.Write(p)
}

// CloseWrite ends the sending side, where the connection can.
func (c settledConn) CloseWrite() error {
	c.settle()
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return nil
}

// settledChannel settles before each write.
type settledChannel struct {
	ssh.Channel
	settle func()
}

func (c settledChannel) Write(p []byte) (int, error) {
	c.settle()
	return c.Channel.Write(p)
}

// Stderr is the channel's other stream.
func (c settledChannel) Stderr() io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{c.Channel.Stderr(), settledWriter{c.Channel.Stderr(), c.settle}}
}

// SendRequest tells how a program has ended.
func (c settledChannel) SendRequest(name string, wantReply bool, payload []byte) (bool, error) {
	c.settle()
	return c.Channel.SendRequest(name, wantReply, payload)
}

type settledWriter struct {
	io.Writer
	settle func()
}

func (w settledWriter) Write(p []byte) (int, error) {
	w.settle()
	return w.Writer.Write(p)
}
