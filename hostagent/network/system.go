// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// System asks the operating system's resolver through Go's: on macOS (libSystem) and Windows (DnsQuery, GetAddrInfo) it knows which name server is asked for
// which domain, per network and VPN, as the host's own programs do. It answers the kinds of records that such resolvers can be asked for; others are
// empty answers.
type System struct{ Resolver *net.Resolver }

// Resolve asks for one record type.
func (s System) Resolve(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	records, err := s.lookup(ctx, q)
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	var failed *net.DNSError
	switch {
	case err == nil:
		reply.Answer = records
	case errors.As(err, &failed) && failed.IsNotFound:
		if !s.exists(ctx, q) {
			reply.Rcode = dns.RcodeNameError
		}
	default:
		return nil, err
	}
	return reply, nil
}

// exists tells a name without such records from one that is not there: programs give up on the latter at once.
func (s System) exists(ctx context.Context, q dns.Question) bool {
	other := map[uint16]string{dns.TypeA: "ip6", dns.TypeAAAA: "ip4"}[q.Qtype]
	if other == "" {
		return true
	}
	_, err := s.Resolver.LookupNetIP(ctx, other, q.Name)
	return err == nil
}

func (s System) lookup(ctx context.Context, q dns.Question) ([]dns.RR, error) {
	h := recordHeader(q.Name, q.Qtype)
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		return s.addresses(ctx, q)
	case dns.TypeCNAME:
		name, err := s.Resolver.LookupCNAME(ctx, q.Name)
		if err != nil || strings.EqualFold(name, q.Name) {
			return nil, err
		}
		return []dns.RR{&dns.CNAME{Hdr: h, Target: name}}, nil
	case dns.TypeTXT:
		texts, err := s.Resolver.LookupTXT(ctx, q.Name)
		return each(texts, func(t string) dns.RR { return &dns.TXT{Hdr: h, Txt: chunks(t)} }), err
	case dns.TypeMX:
		found, err := s.Resolver.LookupMX(ctx, q.Name)
		return each(found, func(m *net.MX) dns.RR { return &dns.MX{Hdr: h, Mx: m.Host, Preference: m.Pref} }), err
	case dns.TypeNS:
		found, err := s.Resolver.LookupNS(ctx, q.Name)
		return each(found, func(m *net.NS) dns.RR { return &dns.NS{Hdr: h, Ns: m.Host} }), err
	case dns.TypeSRV:
		_, found, err := s.Resolver.LookupSRV(ctx, "", "", q.Name)
		return each(found, func(m *net.SRV) dns.RR {
			return &dns.SRV{Hdr: h, Target: m.Target, Port: m.Port, Priority: m.Priority, Weight: m.Weight}
		}), err
	case dns.TypePTR:
		return s.pointers(ctx, q)
	}
	return nil, nil
}

func each[T any](found []T, record func(T) dns.RR) []dns.RR {
	var out []dns.RR
	for _, f := range found {
		out = append(out, record(f))
	}
	return out
}

func (s System) addresses(ctx context.Context, q dns.Question) ([]dns.RR, error) {
	family := "ip4"
	if q.Qtype == dns.TypeAAAA {
		family = "ip6"
	}
	addrs, err := s.Resolver.LookupNetIP(ctx, family, q.Name)
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap().WithZone("")
	}
	return answerAddresses(&dns.Msg{Question: []dns.Question{q}}, addrs).Answer, nil
}

func (s System) pointers(ctx context.Context, q dns.Question) ([]dns.RR, error) {
	ip := reversed(q.Name)
	if ip == "" {
		return nil, nil
	}
	names, err := s.Resolver.LookupAddr(ctx, ip)
	return each(names, func(n string) dns.RR { return &dns.PTR{Hdr: recordHeader(q.Name, dns.TypePTR), Ptr: dns.Fqdn(n)} }), err
}

// reversed is the address that a name below in-addr.arpa or ip6.arpa stands for; "" for others.
func reversed(name string) string {
	name = strings.ToLower(name)
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(v4, ".")
		if len(labels) != 4 {
			return ""
		}
		ip := net.ParseIP(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		if ip == nil {
			return ""
		}
		return ip.String()
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	labels := strings.Split(v6, ".")
	if !ok || len(labels) != 32 {
		return ""
	}
	var b strings.Builder
	for i := 31; i >= 0; i-- {
		b.WriteString(labels[i])
		if i%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	ip := net.ParseIP(b.String())
	if ip == nil {
		return ""
	}
	return ip.String()
}

// chunks splits a text into the strings of at most 255 bytes that a record holds.
func chunks(text string) []string {
	out := []string{}
	for len(text) > 255 {
		out, text = append(out, text[:255]), text[255:]
	}
	return append(out, text)
}
