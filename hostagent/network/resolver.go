// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// hostNames are the names under which every machine knows its host.
var hostNames = []string{"host.docker.internal", "gateway.docker.internal", "host.dev.internal"}

// Names answers what the host itself knows, and asks System for the rest. It is safe for concurrent use.
type Names struct {
	// Host and Gateway are what the host's names lead to.
	Host, Gateway netip.Addr
	// Table is a hosts file: addresses by name, in lower case and without the last dot. It is asked for each query; nil: there is none.
	Table func() map[string][]netip.Addr
	// Search are domains to try for names without a dot, asked for each query; nil: there are none.
	Search func() []string
	// System asks the host's resolver.
	System Resolver
}

// Resolve answers one query.
func (n *Names) Resolve(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	if len(query.Question) != 1 {
		return new(dns.Msg).SetRcode(query, dns.RcodeFormatError), nil
	}
	q := query.Question[0]
	if addrs, known := n.own(q.Name); known && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA) {
		return answerAddresses(query, addrs), nil
	}
	reply, err := n.System.Resolve(ctx, query)
	if n.Search == nil || err == nil && reply.Rcode != dns.RcodeNameError || dns.CountLabel(q.Name) != 1 {
		return reply, err
	}
	for _, domain := range n.Search() {
		if found := n.below(ctx, query, domain); found != nil {
			return found, nil
		}
	}
	return reply, err
}

// own finds a name in the host's tables.
func (n *Names) own(name string) ([]netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if n.Table != nil {
		if addrs, ok := n.Table()[name]; ok {
			return n.reachable(addrs), true
		}
	}
	if !slices.Contains(hostNames, name) {
		return nil, false
	}
	if strings.HasPrefix(name, "gateway.") {
		return []netip.Addr{n.Gateway}, true
	}
	return []netip.Addr{n.Host}, true
}

// reachable replaces the host's loopback by the address that stands for it in the guest.
func (n *Names) reachable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.IsLoopback() {
			a = n.Host
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// below asks for a short name in a search domain; nil when it is not there.
func (n *Names) below(ctx context.Context, query *dns.Msg, domain string) *dns.Msg {
	asked := query.Copy()
	short := query.Question[0].Name
	long := short + dns.Fqdn(domain)
	if _, ok := dns.IsDomainName(long); !ok {
		return nil
	}
	asked.Question[0].Name = long
	reply, err := n.System.Resolve(ctx, asked)
	if err != nil || reply.Rcode != dns.RcodeSuccess || len(reply.Answer) == 0 {
		return nil
	}
	reply.Question = query.Question
	alias := &dns.CNAME{Hdr: recordHeader(short, dns.TypeCNAME), Target: long}
	reply.Answer = append([]dns.RR{alias}, reply.Answer...)
	return reply
}

// answerAddresses answers with those addresses that the query is for. A name with none of them exists all the same.
func answerAddresses(query *dns.Msg, addrs []netip.Addr) *dns.Msg {
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable, reply.Authoritative = true, true
	q := query.Question[0]
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Qtype == dns.TypeA:
			reply.Answer = append(reply.Answer, &dns.A{Hdr: recordHeader(q.Name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && q.Qtype == dns.TypeAAAA:
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: recordHeader(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return reply
}

// header is of a record that nobody is to keep.
func recordHeader(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
}

// ParseHosts reads a hosts file: addresses by name, in the file's order. Lines that it does not understand are left out.
func ParseHosts(text string) map[string][]netip.Addr {
	table := map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil || addr.Zone() != "" {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			table[name] = append(table[name], addr.Unmap())
		}
	}
	return table
}
