// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	dhcpTry  = 5 * time.Second
	linkWait = 20 * time.Second
)

// network brings the machine's link up: with the seed's address, the kernel command line's (ip=dhcp is the default), or DHCP. It returns a function
// that keeps the lease until its context ends, or nil where there is none.
func network(ctx context.Context, seed *proto.Seed) (renew func(context.Context), err error) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo) // the next step says it better
	}
	link, err := firstLink(ctx)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bring up %q: %w", link.Attrs().Name, err)
	}
	if seed != nil && seed.Network != nil {
		return nil, apply(link, *seed.Network)
	}
	lease, err := askDHCP(ctx, link)
	if err != nil {
		return nil, err
	}
	if err := apply(link, fromLease(lease.ACK)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) { keepLease(ctx, link, lease) }, nil
}

// Card waits for the machine's network card and returns its name.
func Card(ctx context.Context) (string, error) {
	link, err := firstLink(ctx)
	if err != nil {
		return "", err
	}
	return link.Attrs().Name, nil
}

// firstLink waits for the first network card.
func firstLink(ctx context.Context) (netlink.Link, error) {
	updates := make(chan netlink.LinkUpdate, 16)
	ctx, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	if err := netlink.LinkSubscribe(updates, ctx.Done()); err != nil {
		return nil, fmt.Errorf("listen for network cards: %w", err)
	}
	for {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, fmt.Errorf("list network cards: %w", err)
		}
		for _, l := range links {
			if isCard(l) {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("find a network card: none appeared within %v", linkWait)
		case <-updates:
		}
	}
}

// isCard tells a network card from what programs make.
func isCard(l netlink.Link) bool {
	return l.Type() == "device" && l.Attrs().Flags&net.FlagLoopback == 0 && len(l.Attrs().HardwareAddr) == 6
}

// askDHCP asks until it is answered or the deadline passes; the first packets may be lost while the link comes up.
func askDHCP(ctx context.Context, link netlink.Link) (*nclient4.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		c, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(dhcpTry/10), nclient4.WithRetry(10))
		if err != nil {
			return nil, fmt.Errorf("ask for an address: %w", err)
		}
		lease, err := c.Request(ctx, dhcpv4.WithOption(dhcpv4.OptHostName(hostName())))
		_ = c.Close() // nothing was promised
		if err == nil {
			return lease, nil
		}
		last = err
	}
	return nil, fmt.Errorf("ask for an address on %q: %w", link.Attrs().Name, errors.Join(last, ctx.Err()))
}

func hostName() string {
	name, _ := os.Hostname()
	return name
}

// fromLease translates a lease.
func fromLease(ack *dhcpv4.DHCPv4) proto.Network {
	ip, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	bits := 24
	if mask := ack.SubnetMask(); mask != nil {
		bits, _ = mask.Size()
	}
	n := proto.Network{Address: netip.PrefixFrom(ip, bits)}
	if routers := ack.Router(); len(routers) > 0 {
		n.Gateway, _ = netip.AddrFromSlice(routers[0].To4())
	}
	for _, d := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(d.To4()); ok {
			n.DNS = append(n.DNS, a)
		}
	}
	if s := ack.DomainSearch(); s != nil {
		n.Search = s.Labels
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil {
		n.MTU = int(mtu)
	}
	return n
}

// apply gives the link its address, route and name servers.
func apply(link netlink.Link, n proto.Network) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.Address.Addr().AsSlice(), Mask: net.CIDRMask(n.Address.Bits(), n.Address.Addr().BitLen())}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("set address %q: %w", n.Address, err)
	}
	if n.MTU > 0 {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", n.MTU, err)
		}
	}
	if n.Gateway.IsValid() {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Gateway.AsSlice()}); err != nil {
			return fmt.Errorf("set gateway %q: %w", n.Gateway, err)
		}
	}
	return os.WriteFile("/run/resolv.conf", []byte(resolvConf(n)), 0o644)
}

func resolvConf(n proto.Network) string {
	var b strings.Builder
	for _, d := range n.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if len(n.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(n.Search, " "))
	}
	return b.String()
}

// keepLease asks again when half of the lease's time is over, until ctx ends.
func keepLease(ctx context.Context, link netlink.Link, lease *nclient4.Lease) {
	for {
		half := max(lease.ACK.IPAddressLeaseTime(time.Hour)/2, time.Minute)
		select {
		case <-ctx.Done():
			return
		case <-time.After(half):
		}
		if next, err := askDHCP(ctx, link); err == nil {
			lease = next
			_ = apply(link, fromLease(lease.ACK)) // an address that is there already is no news
		}
	}
}
