// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package networktest has a guest without a virtual machine, for tests of what talks to one: a second TCP/IP stack in the test's process, on the other end of
// the connection that a VM's network card would hold.
package networktest

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/containers/gvisor-tap-vsock/pkg/tap"
	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// MAC is the guest's card.
const MAC = "52:54:00:12:34:56"

// Guest is the fake guest.
type Guest struct {
	stack *stack.Stack
	// Addresses are those that the guest answers to; the first one is its own.
	Addresses []netip.Addr
}

// NewGuest starts a guest with some addresses on a connection that frames packets as QEMU does. It ends with the test, which the connection may
// end before.
func NewGuest(t testing.TB, conn net.Conn, gateway netip.Addr, mtu int, addrs ...netip.Addr) *Guest {
	t.Helper()
	endpoint, err := tap.NewLinkEndpoint(false, uint32(mtu), MAC, addrs[0].String(), all(addrs))
	if err != nil {
		t.Fatal(err)
	}
	card := tap.NewSwitch(false)
	endpoint.Connect(lossy{card})
	card.Connect(endpoint)
	g := &Guest{Addresses: addrs, stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})}
	if err := g.stack.CreateNIC(1, endpoint); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		p := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(a).WithPrefix()}
		if err := g.stack.AddProtocolAddress(1, p, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, Gateway: address(gateway), NIC: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = card.Accept(ctx, conn, types.QemuProtocol) // the other side ends it, or the test
	}()
	t.Cleanup(func() {
		cancel()
		conn.Close()
		<-done
		g.stack.Close()
		g.stack.Wait()
	})
	g.announce(t, gateway)
	return g
}

// lossy loses packets for a connection that has just ended, at which the switch panics.
type lossy struct{ *tap.Switch }

func (l lossy) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	defer func() { _ = recover() }()
	l.Switch.DeliverNetworkPacket(protocol, pkt)
}

// announce sends a first packet, as a booting system does, which tells the switch where the guest is.
func (g *Guest) announce(t testing.TB, gateway netip.Addr) {
	t.Helper()
	c, err := g.DialPacket(netip.AddrPortFrom(gateway, 9))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("here")) // lost packets are repeated by whoever waits
	_ = c.Close()
}

func all(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: address(a.Addr()), Port: a.Port()}
}

// Listen listens on one of the guest's addresses.
func (g *Guest) Listen(at netip.AddrPort) (net.Listener, error) {
	return gonet.ListenTCP(g.stack, full(at), ipv4.ProtocolNumber)
}

// ListenPacket takes datagrams on one of the guest's addresses.
func (g *Guest) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	local := full(at)
	return gonet.DialUDP(g.stack, &local, nil, ipv4.ProtocolNumber)
}

// Dial connects from the guest to the outside.
func (g *Guest) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return gonet.DialContextTCP(ctx, g.stack, full(to), ipv4.ProtocolNumber)
}

// DialPacket sends datagrams from the guest to the outside.
func (g *Guest) DialPacket(to netip.AddrPort) (net.Conn, error) {
	remote := full(to)
	return gonet.DialUDP(g.stack, nil, &remote, ipv4.ProtocolNumber)
}
