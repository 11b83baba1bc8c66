// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// nameServer answers on a port of the loopback, and returns a resolv.conf that names it.
func nameServer(t *testing.T, records map[string]string) (conf string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: c, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		if addr, ok := records[q.Question[0].Name]; !ok {
			reply.Rcode = dns.RcodeNameError
		} else if rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN %s", q.Question[0].Name, addr)); err == nil {
			reply.Answer = append(reply.Answer, rr)
		}
		_ = w.WriteMsg(reply)
	})}
	served := make(chan error, 1)
	go func() { served <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-served
	})
	return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
}

func query(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

// told is what a reply says, in short.
func told(m *dns.Msg, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	text := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			text += " " + rr.A.String()
		case *dns.AAAA:
			text += " " + rr.AAAA.String()
		case *dns.CNAME:
			text += " → " + rr.Target
		default:
			text += " " + dns.TypeToString[rr.Header().Rrtype]
		}
	}
	return text
}

// fixed asks one name server, and has search domains.
type fixed struct{ server string }

func (f fixed) Resolve(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	return ask(ctx, f.server, q)
}

func TestNames(t *testing.T) {
	port := nameServer(t, map[string]string{"example.com.": "A 192.0.2.1", "db.corp.example.": "A 192.0.2.7", "mail.example.": "MX 10 mx.example."})
	names := &Names{
		Host: netip.MustParseAddr("192.168.127.254"), Gateway: netip.MustParseAddr("192.168.127.1"),
		Table: func() map[string][]netip.Addr {
			return ParseHosts("127.0.0.1 me.local # mine\n192.0.2.9 nas NAS.home.\n2001:db8::9 nas\nnonsense\n::1 me.local")
		},
		Search: func() []string { return []string{"nowhere.example", "corp.example"} },
		System: fixed{"127.0.0.1:" + port},
	}
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"host.docker.internal.", dns.TypeA, "NOERROR 192.168.127.254"},
		{"Host.Docker.Internal.", dns.TypeA, "NOERROR 192.168.127.254"},
		{"host.docker.internal.", dns.TypeAAAA, "NOERROR"},
		{"gateway.docker.internal.", dns.TypeA, "NOERROR 192.168.127.1"},
		{"me.local.", dns.TypeA, "NOERROR 192.168.127.254"},
		{"nas.", dns.TypeA, "NOERROR 192.0.2.9"},
		{"nas.", dns.TypeAAAA, "NOERROR 2001:db8::9"},
		{"nas.home.", dns.TypeA, "NOERROR 192.0.2.9"},
		{"example.com.", dns.TypeA, "NOERROR 192.0.2.1"},
		{"mail.example.", dns.TypeMX, "NOERROR MX"},
		{"db.", dns.TypeA, "NOERROR → db.corp.example. 192.0.2.7"},
		{"nothing.", dns.TypeA, "NXDOMAIN"},
		{"not.there.", dns.TypeA, "NXDOMAIN"},
	} {
		if got := told(names.Resolve(testContext(t), query(c.name, c.kind))); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

func TestResolvConfIsFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	r := &ResolvConf{File: file}
	if _, err := r.Resolve(testContext(t), query("a.example.", dns.TypeA)); err == nil {
		t.Error("no file is no error")
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("search one.example two.example\nnameserver 192.0.2.1\n")
	if got := fmt.Sprint(r.Search()); got != "[one.example two.example]" {
		t.Errorf("search domains %s", got)
	}
	write("nameserver 192.0.2.53\nsearch vpn.example\n# a VPN came\n")
	if got := fmt.Sprint(r.Search()); got != "[vpn.example]" {
		t.Errorf("search domains after a change %s", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Search()); got != "[vpn.example]" {
		t.Errorf("search domains while the file is replaced: %s", got)
	}
}

func TestReversed(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa.": "1.2.3.4",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "2001:db8::1",
		"3.2.1.in-addr.arpa.": "", "x.3.2.1.in-addr.arpa.": "", "example.com.": "", "1.ip6.arpa.": "",
	} {
		if got := reversed(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestDNSOfTheGuest asks from inside, by UDP and TCP.
func TestDNSOfTheGuest(t *testing.T) {
	names := &Names{Host: netip.MustParseAddr("192.168.127.254"), Gateway: netip.MustParseAddr("192.168.127.1"), System: fixed{"127.0.0.1:" + nameServer(t, nil)}}
	n, g := pair(t, names)
	at := netip.AddrPortFrom(n.Gateway, 53)
	stream, err := g.Dial(testContext(t), at)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	packets, err := g.DialPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for name, c := range map[string]*dns.Conn{"tcp": {Conn: stream}, "udp": {Conn: packets}} {
		if err := c.WriteMsg(query("host.docker.internal.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		reply, err := c.ReadMsg()
		if got := told(reply, err); got != "NOERROR 192.168.127.254" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add("127.0.0.1 localhost # me\n::1 six.example\n")
	f.Fuzz(func(t *testing.T, text string) {
		for name, addrs := range ParseHosts(text) {
			if len(addrs) == 0 || name != strings.ToLower(name) {
				t.Errorf("%q: entry %q has %v", text, name, addrs)
			}
			for _, a := range addrs {
				if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
					t.Errorf("%q: entry %q has %v", text, name, a)
				}
			}
		}
	})
}
