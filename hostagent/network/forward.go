// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout bounds a connection out; the guest has its own patience besides.
const dialTimeout = 60 * time.Second

// begin counts work that Close waits for; false once the network is closing.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	n.work.Add(1)
	return true
}

// forwardTCP makes a connection of the guest to the outside. It is called on a goroutine of its own.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	dst := addrPort(id.LocalAddress, id.LocalPort)
	targets := n.outbound(dst)
	if n.isQuiet() {
		r.Complete(false) // the guest repeats it
		return
	}
	if len(targets) == 0 || !n.begin() {
		r.Complete(true)
		return
	}
	defer n.work.Done()
	out, err := n.dialOut(targets)
	if err != nil {
		n.log.Debug("a connection of the machine failed", "to", dst.String(), "error", err)
		// A port that nobody listens on is refused at once; who does not answer is not answered for.
		r.Complete(isRefused(err))
		return
	}
	if n.isQuiet() {
		r.Complete(false)
		_ = out.Close() // the guest repeats it
		return
	}
	var queue waiter.Queue
	endpoint, terr := r.CreateEndpoint(&queue)
	r.Complete(terr != nil)
	if terr != nil {
		_ = out.Close() // the guest has given up
		return
	}
	conn := n.newConn(endpoint, &queue, true)
	stop := context.AfterFunc(n.ctx, func() { conn.Reset(); out.Close() })
	defer stop()
	n.relay.Join(out, conn)
}

func (n *Network) dialOut(targets []netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	var failed error
	for _, t := range targets {
		c, err := d.DialContext(ctx, "tcp", t.String())
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// Idle times after which a UDP flow is forgotten.
const (
	udpIdle = 90 * time.Second
	dnsIdle = 15 * time.Second
)

// maxFlows is how many flows of datagrams a guest may have to the outside at once; each costs the host a socket. What is beyond is lost, as datagrams are.
const maxFlows = 2048

// beginFlow counts one flow more, if it may be and the network is not closing.
func (n *Network) beginFlow() bool {
	if n.flows.Add(1) <= maxFlows && n.begin() {
		return true
	}
	n.flows.Add(-1)
	return false
}

func (n *Network) endFlow() {
	n.flows.Add(-1)
	n.work.Done()
}

// forwardUDP makes a flow of the guest to the outside. It is called where packets are processed, and must not wait.
func (n *Network) forwardUDP(r *udp.ForwarderRequest) {
	id := r.ID()
	targets := n.outbound(addrPort(id.LocalAddress, id.LocalPort))
	if len(targets) == 0 || n.isQuiet() || !n.beginFlow() {
		return
	}
	var queue waiter.Queue
	endpoint, terr := r.CreateEndpoint(&queue)
	if terr != nil {
		n.endFlow()
		return
	}
	go func() {
		defer n.endFlow()
		guest := gonet.NewUDPConn(&queue, endpoint)
		out, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(targets[0]))
		if err != nil {
			_ = guest.Close() // there is nobody to tell
			return
		}
		idle := udpIdle
		if id.LocalPort == 53 {
			idle = dnsIdle
		}
		n.JoinPackets(guest, out, idle)
	}()
}

// JoinPackets copies datagrams both ways until neither side has sent for idle, one is closed, or the network ends; then it closes both.
func (n *Network) JoinPackets(a, b net.Conn, idle time.Duration) {
	closeBoth := sync.OnceFunc(func() { _, _ = a.Close(), b.Close() })
	stop := context.AfterFunc(n.ctx, closeBoth)
	defer stop()
	defer closeBoth()
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { defer closeBoth(); pump(a, b, idle, &last, &n.relay.lent) })
	pump(b, a, idle, &last, &n.relay.lent)
	closeBoth()
	wg.Wait()
}

// pump copies datagrams one way. A refusal (nobody listens yet) is no end: UDP has none but silence.
func pump(dst, src net.Conn, idle time.Duration, last *atomic.Int64, lent *buffers) {
	buf := lent.get()
	defer lent.put(buf)
	for {
		quiet := time.Since(time.Unix(0, last.Load()))
		if quiet >= idle || src.SetReadDeadline(time.Now().Add(idle-quiet)) != nil {
			return
		}
		k, err := src.Read(buf[:])
		var timeout net.Error
		switch {
		case err == nil:
			last.Store(time.Now().UnixNano())
			_, err = dst.Write(buf[:k])
			if errors.Is(err, net.ErrClosed) {
				return
			}
		case errors.As(err, &timeout) && timeout.Timeout(), isRefused(err):
		default:
			return
		}
	}
}
