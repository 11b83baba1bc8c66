// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containers/gvisor-tap-vsock/pkg/tap"
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

// gatewayMAC is the same in every network: they never meet.
const gatewayMAC = "5a:94:ef:e4:0c:ee"

// nic is the number of the stack's one interface.
const nic = 1

// Config describes a network.
type Config struct {
	Subnet netip.Prefix
	// GuestMAC is the guest's card.
	GuestMAC net.HardwareAddr
	// MTU is of both sides, in bytes.
	MTU int
	// Resolver answers the guest's DNS; nil: there is none.
	Resolver Resolver
	Logger   *slog.Logger
}

// Network is a running network. It is safe for concurrent use.
type Network struct {
	Addresses
	config Config
	stack  *stack.Stack
	card   *card
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex // between begin and Close
	work   sync.WaitGroup
	open   atomic.Int64 // connections
	flows  atomic.Int64 // of datagrams from the guest
	relay  Relay

	connsMu sync.Mutex
	conns   map[*Conn]struct{} // open ones
	quiet   bool               // the guest reaches nobody
	dns     *dnsServer
}

// New starts a network that no guest is attached to yet. Close ends it.
func New(c Config) (*Network, error) {
	n := &Network{Addresses: Plan(c.Subnet), config: c, log: c.Logger, conns: map[*Conn]struct{}{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	endpoint, err := tap.NewLinkEndpoint(false, uint32(c.MTU), gatewayMAC, n.Gateway.String(), []string{n.Host.String(), n.Dialer.String()})
	if err != nil {
		return nil, fmt.Errorf("make the machine's network: %w", err)
	}
	n.card = &card{endpoint: endpoint, gateway: endpoint.LinkAddress()}
	endpoint.Connect(n.card)
	if err := n.makeStack(endpoint); err != nil {
		n.cancel()
		return nil, fmt.Errorf("make the machine's network: %w", err)
	}
	if c.Resolver != nil {
		if n.dns, err = n.serveDNS(c.Resolver); err != nil {
			return nil, errors.Join(fmt.Errorf("serve the machine's DNS: %w", err), n.Close())
		}
	}
	return n, nil
}

// Sizes of TCP windows: large ones for throughput, grown as needed so that idle connections cost nothing.
const (
	minWindow     = 4 << 10
	defaultWindow = 256 << 10
	maxWindow     = 4 << 20
)

// maxRetry is the longest time between two attempts to get a packet through, and maxRetries how many there are: a day.
const (
	maxRetry   = time.Second
	maxRetries = 24 * 60 * 60
)

// maxHandshakes is how many of the guest's connections out may be under way; the stack forgets further attempts and the guest repeats them.
const maxHandshakes = 2048

func (n *Network) makeStack(endpoint stack.LinkEndpoint) error {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	n.stack = s
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minWindow, Default: defaultWindow, Max: maxWindow}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minWindow, Default: defaultWindow, Max: maxWindow}
	// A guest that was paused finds its connections alive, and hears from us soon after it goes on.
	retry, retries := tcpip.TCPMaxRTOOption(maxRetry), tcpip.TCPMaxRetriesOption(maxRetries)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send, &retry, &retries} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return errors.New(err.String())
		}
	}
	if err := s.CreateNIC(nic, endpoint); err != nil {
		return errors.New(err.String())
	}
	for _, a := range []netip.Addr{n.Gateway, n.Dialer} {
		address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(a).WithPrefix()}
		if err := s.AddProtocolAddress(nic, address, stack.AddressProperties{}); err != nil {
			return errors.New(err.String())
		}
	}
	// The stack takes what is sent to anybody, and answers in their names: it stands for the rest of the world.
	s.SetSpoofing(nic, true)
	s.SetPromiscuousMode(nic, true)
	return n.route()
}

// route sends everything to the guest, which is the only one there.
func (n *Network) route() error {
	mask := net.CIDRMask(n.Subnet.Bits(), 32)
	subnet, err := tcpip.NewSubnet(address(n.Subnet.Addr()), tcpip.MaskFromBytes(mask))
	if err != nil {
		return err
	}
	n.stack.SetRouteTable([]tcpip.Route{
		{Destination: subnet, NIC: nic},
		{Destination: header.IPv4EmptySubnet, Gateway: address(n.Guest), NIC: nic},
	})
	if len(n.config.GuestMAC) == 6 {
		if err := n.SetGuestMAC(n.config.GuestMAC); err != nil {
			return err
		}
	}
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, 0, maxHandshakes, n.forwardTCP).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.forwardUDP).HandlePacket)
	return nil
}

// SetGuestMAC says what address the guest's card has from now on.
func (n *Network) SetGuestMAC(mac net.HardwareAddr) error {
	for _, a := range []netip.Addr{n.Guest, n.Loopback} {
		if err := n.stack.AddStaticNeighbor(nic, ipv4.ProtocolNumber, address(a), tcpip.LinkAddress(mac)); err != nil {
			return fmt.Errorf("set the address of the machine's card: %s", err)
		}
	}
	return nil
}

// Quiesce resets all open connections, on both sides, and answers none that the guest begins until Reopen: the guest repeats what it sent meanwhile. It is
// for a guest about to be saved, whose connections cannot go on in its next life. Connections to the guest can be made all the time.
func (n *Network) Quiesce() {
	n.connsMu.Lock()
	n.quiet = true
	open := slices.Collect(maps.Keys(n.conns))
	n.connsMu.Unlock()
	for _, c := range open {
		c.Reset()
	}
}

// Reopen undoes Quiesce.
func (n *Network) Reopen() {
	n.connsMu.Lock()
	defer n.connsMu.Unlock()
	n.quiet = false
}

func (n *Network) isQuiet() bool {
	n.connsMu.Lock()
	defer n.connsMu.Unlock()
	return n.quiet
}

// Outbound is how many TCP connections the guest has open to the outside.
func (n *Network) Outbound() int {
	n.connsMu.Lock()
	defer n.connsMu.Unlock()
	count := 0
	for c := range n.conns {
		if c.outbound {
			count++
		}
	}
	return count
}

// Attach serves a VM's card on a connection that frames packets as QEMU's stream devices do. It returns when the connection or the network ends,
// and closes the connection.
func (n *Network) Attach(conn net.Conn) error {
	if !n.begin() {
		return conn.Close()
	}
	defer n.work.Done() // before the stack goes: it is given packets from here
	stop := context.AfterFunc(n.ctx, func() { conn.Close() })
	defer stop()
	err := n.card.serve(conn)
	if n.ctx.Err() != nil {
		return nil
	}
	return err
}

// Dial connects to the guest from the address that it trusts.
func (n *Network) Dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	return n.dialFrom(ctx, n.Dialer, to)
}

// DialPacket makes a UDP socket that talks to one address of the guest.
func (n *Network) DialPacket(to netip.AddrPort) (net.Conn, error) {
	local, remote := fullAddress(netip.AddrPortFrom(n.Dialer, 0)), fullAddress(to)
	c, err := gonet.DialUDP(n.stack, &local, &remote, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("dial %q in the machine: %w", to, err)
	}
	return c, nil
}

// Connections is how many TCP connections are open now, in and out.
func (n *Network) Connections() int { return int(n.open.Load()) }

// Traffic is what the guest has received and sent so far, in bytes.
func (n *Network) Traffic() (received, sent uint64) {
	return n.card.sent.Load(), n.card.received.Load()
}

// Close ends the network and everything in it, and waits for that.
func (n *Network) Close() error {
	n.mu.Lock()
	n.cancel()
	n.mu.Unlock()
	var err error
	if n.dns != nil {
		err = n.dns.close()
	}
	n.stack.Close()
	n.work.Wait()
	n.stack.Wait()
	return err
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: address(a.Addr()), Port: a.Port()}
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
