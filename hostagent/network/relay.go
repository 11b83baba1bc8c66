// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// Relay joins streams. The zero value is ready; one is shared by many connections, which borrow its buffers.
type Relay struct{ lent buffers }

// Join copies between a and b, each direction ending by itself (half-close), until both have ended or one has failed, and closes them. A reset on
// one side becomes one on the other. It is back-pressure itself: what one side does not take, the other may not send.
func (r *Relay) Join(a, b net.Conn) {
	var once sync.Once
	broken := func(err error) { once.Do(func() { breakBoth(err, a, b) }) }
	var wg sync.WaitGroup
	oneWay := func(dst, src net.Conn) {
		if err := r.copy(dst, src); err != nil {
			broken(err)
			return
		}
		if h, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite() // the other side may be gone, which the other direction finds out
			return
		}
		_ = dst.Close() // a stream without halves
	}
	wg.Go(func() { oneWay(a, b) })
	oneWay(b, a)
	wg.Wait()
	_, _ = a.Close(), b.Close()
}

func (r *Relay) copy(dst io.Writer, src io.Reader) error {
	if guest, ok := src.(*Conn); ok {
		_, err := guest.writeTo(dst, &r.lent)
		return err
	}
	if raw := rawConn(src); raw != nil {
		return copyReady(dst, raw, &r.lent)
	}
	buf := make([]byte, 32<<10)
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
	return err
}

// breakBoth ends both streams at once; with resets where the streams have them and err is more than a closed connection.
func breakBoth(err error, conns ...net.Conn) {
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	for _, c := range conns {
		if reset {
			switch c := c.(type) {
			case *Conn:
				c.Reset()
			case *net.TCPConn:
				_ = c.SetLinger(0) // closing it resets it
			}
		}
		_ = c.Close()
	}
}

// rawConn is what a stream of the operating system's is read with while no buffer waits; nil for others.
func rawConn(src io.Reader) syscall.RawConn {
	switch c := src.(type) {
	case *net.TCPConn:
		return orNil(c.SyscallConn())
	case *net.UnixConn:
		return orNil(c.SyscallConn())
	}
	return nil
}

func orNil(raw syscall.RawConn, err error) syscall.RawConn {
	if err != nil || !readsReady {
		return nil
	}
	return raw
}
