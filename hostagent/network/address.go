// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"net/netip"
)

// Addresses are the parties of the network.
type Addresses struct {
	Subnet netip.Prefix
	// Gateway routes and answers DNS. To connections it is the host, as Host is.
	Gateway netip.Addr
	// Guest is the machine.
	Guest netip.Addr
	// Loopback stands for the guest's own 127.0.0.1, which no packet from outside may name: the guest translates it.
	Loopback netip.Addr
	// Dialer is where connections to the guest come from, which the guest knows by it: nobody else here has it.
	Dialer netip.Addr
	// Host is the host's loopback.
	Host netip.Addr
}

// Plan gives the parties of a subnet their addresses: the first four, and the last for the host.
func Plan(subnet netip.Prefix) Addresses {
	subnet = subnet.Masked()
	base := subnet.Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	at := func(i uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], first+i)
		return netip.AddrFrom4(b)
	}
	size := uint32(1) << (32 - subnet.Bits())
	return Addresses{Subnet: subnet, Gateway: at(1), Guest: at(2), Loopback: at(3), Dialer: at(4), Host: at(size - 2)}
}

// outbound says where on the host's side a packet of the guest to dst goes: addresses to try in order; none: it is refused.
func (a Addresses) outbound(dst netip.AddrPort) []netip.AddrPort {
	addr := dst.Addr()
	switch {
	case addr == a.Host || addr == a.Gateway:
		// Servers of developers listen on either loopback.
		return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port()), netip.AddrPortFrom(netip.IPv6Loopback(), dst.Port())}
	case a.Subnet.Contains(addr), addr.IsLoopback(), addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return nil
	case addr.IsLinkLocalUnicast():
		return nil // a cloud's metadata service hands out the host's credentials
	}
	return []netip.AddrPort{dst}
}
