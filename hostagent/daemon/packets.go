// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// packetIdle is when a client that sends datagrams, and gets none, is forgotten; maxClients how many are remembered.
const (
	packetIdle = 90 * time.Second
	maxClients = 4096
)

// packetClients are the flows behind one UDP port: one for each client, so that answers find their way back.
type packetClients struct {
	mu    sync.Mutex
	flows map[netip.AddrPort]*packetFlow
}

// carryPackets passes datagrams on to the guest, and answers back, until the socket is closed.
func (a *agent) carryPackets(ctx context.Context, conn *net.UDPConn, fw forward) {
	clients := &packetClients{flows: map[netip.AddrPort]*packetFlow{}}
	buf := make([]byte, 65535)
	for {
		k, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				break
			}
			continue // an answer of an earlier datagram: its client is gone
		}
		if flow := a.flow(clients, conn, from, fw); flow != nil {
			_, _ = flow.guest.Write(buf[:k]) // lost, as datagrams are
			flow.touch()
		}
	}
	clients.mu.Lock()
	for _, flow := range clients.flows {
		_ = flow.guest.Close() // its goroutine forgets it
	}
	clients.mu.Unlock()
}

// packetFlow is one client's.
type packetFlow struct{ guest net.Conn }

// touch says that the flow is in use.
func (f *packetFlow) touch() { _ = f.guest.SetReadDeadline(time.Now().Add(packetIdle)) }

// flow finds a client's flow, or makes one.
func (a *agent) flow(c *packetClients, conn *net.UDPConn, from netip.AddrPort, fw forward) *packetFlow {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flows[from]; f != nil {
		return f
	}
	if len(c.flows) >= maxClients {
		return nil
	}
	v := a.gate.tryPass(reachEngine)
	l := a.current.Load()
	if v == nil || l == nil {
		return nil // lost, as datagrams are; the machine wakes meanwhile
	}
	guest, err := a.net.Load().DialPacket(fw.Guest)
	if err != nil {
		v.end()
		return nil
	}
	f := &packetFlow{guest: guest}
	stop := context.AfterFunc(l.ctx, func() { _ = guest.Close() })
	f.touch()
	c.flows[from] = f
	a.work.Go(func() {
		defer v.end()
		defer stop()
		defer func() {
			c.mu.Lock()
			delete(c.flows, from)
			c.mu.Unlock()
			_ = guest.Close() // a second time does no harm
		}()
		f.answer(conn, from)
	})
	return f
}

// answer passes the guest's datagrams back until there are none for a while.
func (f *packetFlow) answer(conn *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 65535)
	for {
		k, err := f.guest.Read(buf)
		var timeout net.Error
		switch {
		case err == nil:
			f.touch()
			if _, err := conn.WriteToUDPAddrPort(buf[:k], to); errors.Is(err, net.ErrClosed) {
				return
			}
		case errors.As(err, &timeout) && timeout.Timeout():
			return
		case isRefused(err):
			// nobody listens in the guest, yet
		default:
			return
		}
	}
}

// isRefused: the guest's answer to a datagram for a port that nobody has.
func isRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Err != nil && op.Err.Error() == "connection was refused"
}
