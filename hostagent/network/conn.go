// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is a TCP connection in the machine's network. It holds no buffer while nothing is read, so that many idle ones cost little.
type Conn struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
	queue    *waiter.Queue
	outbound bool // the guest began it
	network  *Network
	once     sync.Once
}

func (n *Network) newConn(endpoint tcpip.Endpoint, queue *waiter.Queue, outbound bool) *Conn {
	n.open.Add(1)
	c := &Conn{TCPConn: gonet.NewTCPConn(queue, endpoint), endpoint: endpoint, queue: queue, outbound: outbound, network: n}
	n.connsMu.Lock()
	n.conns[c] = struct{}{}
	late := outbound && n.quiet
	n.connsMu.Unlock()
	if late {
		c.Reset()
	}
	return c
}

// ended forgets the connection, once.
func (c *Conn) ended() {
	c.network.open.Add(-1)
	c.network.connsMu.Lock()
	defer c.network.connsMu.Unlock()
	delete(c.network.conns, c)
}

func (n *Network) dialFrom(ctx context.Context, from netip.Addr, to netip.AddrPort) (*Conn, error) {
	queue := &waiter.Queue{}
	endpoint, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	if terr != nil {
		return nil, fmt.Errorf("dial %q in the machine: %s", to, terr)
	}
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	terr = endpoint.Bind(tcpip.FullAddress{NIC: nic, Addr: address(from)})
	if terr == nil {
		terr = endpoint.Connect(fullAddress(to))
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-writable:
			terr = endpoint.LastError()
		case <-ctx.Done():
			endpoint.Close()
			return nil, fmt.Errorf("dial %q in the machine: %w", to, context.Cause(ctx))
		case <-n.ctx.Done():
			endpoint.Close()
			return nil, fmt.Errorf("dial %q in the machine: %w", to, net.ErrClosed)
		}
	}
	if terr != nil {
		endpoint.Close()
		return nil, fmt.Errorf("dial %q in the machine: %w", to, asError(terr))
	}
	return n.newConn(endpoint, queue, false), nil
}

// asError translates the stack's errors to those that callers know.
func asError(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionReset, *tcpip.ErrConnectionAborted:
		return syscall.ECONNRESET
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	}
	return errors.New(err.String())
}

// Close closes both directions; what was written is still delivered.
func (c *Conn) Close() error {
	c.once.Do(c.ended)
	return c.TCPConn.Close()
}

// Reset breaks the connection: the guest sees a reset.
func (c *Conn) Reset() {
	c.once.Do(c.ended)
	c.endpoint.Abort()
}

// bufferSize fits the largest packets and a good part of a window.
const bufferSize = 64 << 10

// buffers are lent to connections for as long as they have bytes to move.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[bufferSize]byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p
	}
	return new([bufferSize]byte)
}

func (b *buffers) put(p *[bufferSize]byte) { b.pool.Put(p) }

// WriteTo copies what the guest sends to w until the guest ends its direction.
func (c *Conn) WriteTo(w io.Writer) (int64, error) { return c.writeTo(w, &buffers{}) }

func (c *Conn) writeTo(w io.Writer, lent *buffers) (total int64, err error) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for {
		n, terr, err := c.move(w, lent)
		total += int64(n)
		switch terr.(type) {
		case nil:
			if err != nil {
				return total, err
			}
		case *tcpip.ErrWouldBlock:
			<-readable // a closed endpoint wakes its readers, too
		case *tcpip.ErrClosedForReceive:
			return total, nil
		default:
			return total, asError(terr)
		}
	}
}

// move reads once and writes what it got.
func (c *Conn) move(w io.Writer, lent *buffers) (int, tcpip.Error, error) {
	buf := lent.get()
	defer lent.put(buf)
	into := tcpip.SliceWriter(buf[:])
	r, terr := c.endpoint.Read(&into, tcpip.ReadOptions{})
	if terr != nil {
		return 0, terr, nil
	}
	c.endpoint.ModerateRecvBuf(r.Count)
	n, err := w.Write(buf[:r.Count])
	return n, nil, err
}
