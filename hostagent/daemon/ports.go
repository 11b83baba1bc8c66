// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	api "github.com/moby/moby/api/types/network"

	"github.com/seed71221737/dev/hostagent/network"
)

// containerPorts is what a running container publishes.
type containerPorts struct {
	Name  string
	Ports api.PortMap
}

// place is where a forward is served: at most one can be at each.
type place struct {
	Protocol string // tcp, udp, or sctp, which is not served
	Host     netip.AddrPort
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.Protocol, q.Protocol), p.Host.Addr().Compare(q.Host.Addr()), cmp.Compare(p.Host.Port(), q.Host.Port()))
}

// forward carries connections from a place on the host to an address in the guest.
type forward struct {
	place
	Guest netip.AddrPort
	// Inside: the address is one that only the guest itself can reach, through the link.
	Inside    bool
	Container string
}

// wantedForwards are the forwards for all containers, in order. Where two containers claim one place the first by name has it: the engine lets that
// happen only while one of them is on its way out.
func wantedForwards(containers map[string]containerPorts, at network.Addresses) []forward {
	byPlace := map[place]forward{}
	for _, id := range slices.SortedFunc(maps.Keys(containers), func(a, b string) int {
		return cmp.Or(cmp.Compare(containers[a].Name, containers[b].Name), cmp.Compare(a, b))
	}) {
		for _, f := range containerForwards(containers[id], at) {
			if _, taken := byPlace[f.place]; !taken {
				byPlace[f.place] = f
			}
		}
	}
	return slices.SortedFunc(maps.Values(byPlace), func(a, b forward) int { return a.compare(b.place) })
}

// containerForwards are the forwards for one container.
func containerForwards(c containerPorts, at network.Addresses) []forward {
	var out []forward
	for port, bindings := range c.Ports {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil || n == 0 {
				continue
			}
			host := b.HostIP
			if !host.IsValid() {
				host = netip.IPv4Unspecified()
			}
			f := forward{place: place{string(port.Proto()), netip.AddrPortFrom(host, uint16(n))}, Container: c.Name}
			f.Guest, f.Inside = guestSide(f.Host, at)
			out = append(out, f)
		}
	}
	return out
}

// borrowed are the host's addresses that the guest has to have for some forwards, in order.
func borrowed(forwards map[place]forward) []netip.Addr {
	var out []netip.Addr
	for p, f := range forwards {
		if a := p.Host.Addr(); a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && f.Guest.Addr() == a {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// guestSide is where in the guest the engine listens for a host address. The guest has its own address and a stand-in for its loopback; other addresses
// of the host it borrows (see addressScript). IPv6 is not spoken between here and there.
func guestSide(host netip.AddrPort, at network.Addresses) (guest netip.AddrPort, inside bool) {
	addr := host.Addr().Unmap()
	switch {
	case addr.IsUnspecified():
		return netip.AddrPortFrom(at.Guest, host.Port()), false
	case addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}):
		return netip.AddrPortFrom(at.Loopback, host.Port()), false
	case addr.Is4() && !addr.IsLoopback():
		return netip.AddrPortFrom(addr, host.Port()), false
	}
	return netip.AddrPortFrom(addr, host.Port()), true
}

// diffForwards says which of the forwards that are there are to end, and which are to begin, so that the wanted ones are there. A forward that changed
// ends and begins.
func diffForwards(have map[place]forward, want []forward) (end []place, begin []forward) {
	keep := map[place]bool{}
	for _, f := range want {
		if old, ok := have[f.place]; ok && old == f {
			keep[f.place] = true
			continue
		}
		begin = append(begin, f)
	}
	for p := range have {
		if !keep[p] {
			end = append(end, p)
		}
	}
	slices.SortFunc(end, place.compare)
	return end, begin
}
