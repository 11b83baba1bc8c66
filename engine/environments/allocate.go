// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package environments

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/compose"
)

// PortRange are the host ports that environments get, first and last.
type PortRange struct{ First, Last uint16 }

// DefaultPorts lie below those that systems hand out for outgoing connections (from 32768 on Linux, 49152 elsewhere).
func DefaultPorts() PortRange { return PortRange{20000, 29999} }

// ParsePortRange reads FIRST-LAST.
func ParsePortRange(text string) (PortRange, error) {
	first, last, _ := strings.Cut(text, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	b, lastErr := strconv.ParseUint(last, 10, 16)
	if err != nil || lastErr != nil || a == 0 || a > b {
		return PortRange{}, fmt.Errorf("%q is not a range of ports, such as %s", text, DefaultPorts())
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// String writes FIRST-LAST.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// The pools that subnets come from when a pinned one has to move: the upper half of 10/8, and a range of unique local addresses (RFC 4193) of our own.
const (
	pool4 = "10.128.0.0/9"
	pool6 = "fd6f:7de3:51c9::/48"
)

// Host says what of the host is in use, beside what environments have.
type Host struct {
	// Free reports whether a port can be listened on.
	Free func(protocol string, port uint16) bool
	// Networks are the ranges that the host is connected to.
	Networks []netip.Prefix
	// Ports are those to give; the zero range is [DefaultPorts].
	Ports PortRange
}

// ThisHost looks at the host that the process runs on.
func ThisHost() Host {
	h := Host{Free: portFree}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return h // nothing is known to be in the way
	}
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			h.Networks = append(h.Networks, prefix.Masked())
		}
	}
	return h
}

// portFree tries to listen. What has a protocol that cannot be tried is taken to be free.
func portFree(protocol string, port uint16) bool {
	address := net.JoinHostPort("", strconv.Itoa(int(port)))
	switch protocol {
	case "tcp":
		l, err := net.Listen("tcp", address)
		if err != nil {
			return false
		}
		_ = l.Close()
	case "udp":
		l, err := net.ListenPacket("udp", address)
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// Has reports whether the environment has been given all that is needed.
func (r *Record) Has(needs compose.Needs) bool {
	return !slices.ContainsFunc(needs.Ports, func(n compose.PortNeed) bool { return !r.hasPorts(n) }) &&
		!slices.ContainsFunc(needs.Subnets, func(n compose.SubnetNeed) bool { return !r.hasSubnet(n) })
}

func (r *Record) hasPorts(n compose.PortNeed) bool {
	_, ok := r.Ports[n.Key]
	return ok && max(1, r.Counts[n.Key]) >= n.Count
}

func (r *Record) hasSubnet(n compose.SubnetNeed) bool {
	have, ok := r.Subnets[n.Key]
	return ok && have.Bits() == n.Like.Bits() && have.Addr().Is4() == n.Like.Addr().Is4()
}

// Allocate gives the environment r of s what it needs and does not have yet: the lowest ports that no environment has and that are free, and
// subnets that meet no other environment's nor the host's. What it has stays.
func (s *State) Allocate(r *Record, needs compose.Needs, host Host) error {
	for _, n := range needs.Ports {
		if r.hasPorts(n) {
			continue
		}
		first, err := s.freePorts(n, host)
		if err != nil {
			return err
		}
		if r.Ports == nil {
			r.Ports = map[string]uint16{}
		}
		r.Ports[n.Key] = first
		if n.Count > 1 {
			if r.Counts == nil {
				r.Counts = map[string]int{}
			}
			r.Counts[n.Key] = n.Count
		}
	}
	for _, n := range needs.Subnets {
		if r.hasSubnet(n) {
			continue
		}
		subnet, err := s.freeSubnet(n, host)
		if err != nil {
			return err
		}
		if r.Subnets == nil {
			r.Subnets = map[string]netip.Prefix{}
		}
		r.Subnets[n.Key] = subnet
	}
	return nil
}

// freePorts finds ports in a row.
func (s *State) freePorts(n compose.PortNeed, host Host) (first uint16, err error) {
	ports := cmp.Or(host.Ports, DefaultPorts())
	taken := s.takenPorts()
	run := 0
	for port := int(ports.First); port <= int(ports.Last); port++ {
		if taken[uint16(port)] || !host.Free(n.Protocol, uint16(port)) {
			run = 0
			continue
		}
		if run++; run == n.Count {
			return uint16(port - n.Count + 1), nil
		}
	}
	return 0, fmt.Errorf("find %d free ports for %s: none are left from %d to %d; dev env rm removes environments that are not needed, and DEV_ENV_PORTS sets another range",
		n.Count, n.Key, ports.First, ports.Last)
}

func (s *State) takenPorts() map[uint16]bool {
	taken := map[uint16]bool{}
	for _, r := range s.Environments {
		for key, first := range r.Ports {
			for i := range max(1, r.Counts[key]) {
				taken[first+uint16(i)] = true
			}
		}
	}
	return taken
}

// freeSubnet finds a subnet as large as the one that is pinned.
func (s *State) freeSubnet(n compose.SubnetNeed, host Host) (netip.Prefix, error) {
	pool := netip.MustParsePrefix(pool4)
	if n.Like.Addr().Is6() {
		pool = netip.MustParsePrefix(pool6)
	}
	if n.Like.Bits() < pool.Bits() {
		return netip.Prefix{}, fmt.Errorf("find a subnet for network %s: %s is larger than the range there is for environments, %s", n.Key, n.Like, pool)
	}
	taken := slices.Clone(host.Networks)
	for _, r := range s.Environments {
		taken = slices.AppendSeq(taken, maps.Values(r.Subnets))
	}
	for p := netip.PrefixFrom(pool.Addr(), n.Like.Bits()); pool.Contains(p.Addr()); {
		i := slices.IndexFunc(taken, p.Overlaps)
		if i < 0 {
			return p, nil
		}
		next, ok := after(p, taken[i])
		if !ok {
			break
		}
		p = next
	}
	return netip.Prefix{}, fmt.Errorf("find a subnet for network %s: none of the size of %s is left in %s", n.Key, n.Like, pool)
}

// after is the first prefix of p's size that lies behind both p and what is in its way.
func after(p, obstacle netip.Prefix) (netip.Prefix, bool) {
	bits := min(p.Bits(), obstacle.Bits())
	last := p.Addr().AsSlice()
	for i := bits; i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	next := end.Next()
	return netip.PrefixFrom(next, p.Bits()), next.IsValid()
}
