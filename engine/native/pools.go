// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed71221737/dev/engine/config"
)

// route is one entry of the host's routing table.
type route struct {
	prefix netip.Prefix
	device string
}

// candidatePools are the ranges that networks may get, best first. The first
// keeps docker0 where everybody expects it; the others give 256 networks of
// 4094 addresses, then 256 of 254, instead of Docker's 31.
var candidatePools = []config.AddressPool{
	{Base: netip.MustParsePrefix("172.17.0.0/16"), Size: 16},
	{Base: netip.MustParsePrefix("172.18.0.0/15"), Size: 20},
	{Base: netip.MustParsePrefix("172.20.0.0/14"), Size: 20},
	{Base: netip.MustParsePrefix("172.24.0.0/13"), Size: 20},
	{Base: netip.MustParsePrefix("192.168.0.0/16"), Size: 24},
}

// fallbackPools are used when the host's routes leave nothing of the others.
var fallbackPools = []config.AddressPool{
	{Base: netip.MustParsePrefix("10.64.0.0/10"), Size: 24},
	{Base: netip.MustParsePrefix("100.64.0.0/10"), Size: 24},
	{Base: netip.MustParsePrefix("198.18.0.0/15"), Size: 24},
}

// widest is the prefix length below which a route says "everything", as the
// default route does and the two halves that some VPNs set instead of it.
const widest = 8

// addressPools are the candidate ranges less everything the host routes
// elsewhere. Routes of the engine's own bridges do not count: what is in use
// stays in use.
func addressPools(routes []route) ([]config.AddressPool, error) {
	taken := foreign(routes)
	for _, candidates := range [][]config.AddressPool{candidatePools, fallbackPools} {
		var pools []config.AddressPool
		for _, c := range candidates {
			for _, base := range subtract(c.Base, taken, max(c.Size, 24)) {
				pools = append(pools, config.AddressPool{Base: base, Size: max(c.Size, base.Bits())})
			}
		}
		if len(pools) > 0 {
			return pools, nil
		}
	}
	return nil, fmt.Errorf("find free subnets for networks: the host's routes take all private ranges; " +
		"set engine.address-pools in the configuration")
}

// foreign are the prefixes that are routed to somebody else.
func foreign(routes []route) []netip.Prefix {
	var taken []netip.Prefix
	for _, r := range routes {
		if r.prefix.IsValid() && r.prefix.Addr().Is4() && r.prefix.Bits() >= widest && !ownBridge(r.device) {
			taken = append(taken, r.prefix.Masked())
		}
	}
	return taken
}

// ownBridge says that a network device is one that dockerd makes.
func ownBridge(device string) bool {
	if device == "docker0" || device == "docker_gwbridge" {
		return true
	}
	id, ok := strings.CutPrefix(device, "br-")
	return ok && len(id) == 12 && strings.Trim(id, "0123456789abcdef") == ""
}

// subtract is what remains of base without the taken prefixes, in as few
// prefixes as possible, none longer than smallest bits.
func subtract(base netip.Prefix, taken []netip.Prefix, smallest int) []netip.Prefix {
	clash := false
	for _, t := range taken {
		if t.Overlaps(base) {
			clash = true
			if t.Bits() <= base.Bits() {
				return nil // taken as a whole
			}
		}
	}
	if !clash {
		return []netip.Prefix{base}
	}
	if base.Bits() >= smallest {
		return nil
	}
	low := netip.PrefixFrom(base.Addr(), base.Bits()+1)
	high := netip.PrefixFrom(setBit(base.Addr(), base.Bits()), base.Bits()+1)
	return append(subtract(low, taken, smallest), subtract(high, taken, smallest)...)
}

// setBit sets one bit of an IPv4 address, counted from the left.
func setBit(a netip.Addr, bit int) netip.Addr {
	b := a.As4()
	b[bit/8] |= 1 << (7 - bit%8)
	return netip.AddrFrom4(b)
}

// clashes names networks whose subnet the host routes elsewhere, as happens
// when a VPN comes up after the network was made.
func clashes(networks map[string][]netip.Prefix, routes []route) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		for _, subnet := range networks[name] {
			for _, r := range routes {
				if r.prefix.IsValid() && r.prefix.Bits() >= widest && !ownBridge(r.device) && r.prefix.Overlaps(subnet) {
					list = append(list, fmt.Sprintf("network %q (%s) overlaps the host's route to %s through %s: remove and make it again", name, subnet, r.prefix, r.device))
				}
			}
		}
	}
	return list
}
