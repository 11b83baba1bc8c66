// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Resolver answers one DNS question of the guest. Answers are not kept: what the host would say now is what counts.
type Resolver interface {
	Resolve(ctx context.Context, query *dns.Msg) (*dns.Msg, error)
}

// dnsTimeout bounds one query; resolvers in the guest ask again after five seconds.
const dnsTimeout = 10 * time.Second

// maxQueries is how many are answered at once; further ones wait.
const maxQueries = 256

// dnsServer answers on the gateway.
type dnsServer struct {
	network  *Network
	resolver Resolver
	servers  []*dns.Server
	ended    sync.WaitGroup
	busy     chan struct{}
}

func (n *Network) serveDNS(r Resolver) (*dnsServer, error) {
	at := fullAddress(netip.AddrPortFrom(n.Gateway, 53))
	packets, err := gonet.DialUDP(n.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	listener, err := gonet.ListenTCP(n.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return nil, errors.Join(err, packets.Close())
	}
	s := &dnsServer{network: n, resolver: r, busy: make(chan struct{}, maxQueries)}
	s.servers = []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}}
	for _, server := range s.servers {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		failed := make(chan error, 1)
		s.ended.Go(func() { failed <- server.ActivateAndServe() })
		select {
		case <-started:
		case err := <-failed:
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// ServeDNS answers one query.
func (s *dnsServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	s.busy <- struct{}{}
	defer func() { <-s.busy }()
	ctx, cancel := context.WithTimeout(s.network.ctx, dnsTimeout)
	defer cancel()
	reply, err := s.resolver.Resolve(ctx, query)
	if err != nil {
		s.network.log.Debug("a DNS query failed", "query", question(query), "error", err)
		reply = new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	}
	reply.Id = query.Id
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if o := query.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // who asked may be gone
}

func question(m *dns.Msg) string {
	if len(m.Question) == 0 {
		return ""
	}
	return m.Question[0].String()
}

func (s *dnsServer) close() error {
	var errs []error
	for _, server := range s.servers {
		if err := server.Shutdown(); err != nil {
			errs = append(errs, err)
		}
	}
	s.ended.Wait()
	return errors.Join(errs...)
}
