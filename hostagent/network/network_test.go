// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed71221737/dev/hostagent/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what anything may take on a busy machine.
const patience = 60 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// pair is a network with a fake guest on it.
func pair(t testing.TB, resolver Resolver) (*Network, *networktest.Guest) {
	t.Helper()
	const mtu = 16000
	mac, _ := net.ParseMAC(networktest.MAC)
	n, err := New(Config{Subnet: netip.MustParsePrefix("192.168.127.0/24"), GuestMAC: mac, MTU: mtu, Resolver: resolver, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "net.sock"))
	if err != nil {
		t.Fatal(err)
	}
	card, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	attached := make(chan error, 1)
	go func() { attached <- n.Attach(conn) }()
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		<-attached
	})
	return n, networktest.NewGuest(t, card, n.Gateway, mtu, n.Guest, n.Loopback)
}

// serve calls handle for each connection to an address of the guest.
func serve(t testing.TB, g *networktest.Guest, at netip.AddrPort, handle func(net.Conn)) {
	t.Helper()
	l, err := g.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go accept(l, handle)
}

func accept(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go handle(c)
	}
}

func echo(c net.Conn) {
	_, _ = io.Copy(c, c)
	_ = c.Close()
}

func TestPlan(t *testing.T) {
	a := Plan(netip.MustParsePrefix("10.1.2.16/28"))
	for name, c := range map[string]struct {
		got  netip.Addr
		want string
	}{"gateway": {a.Gateway, "10.1.2.17"}, "guest": {a.Guest, "10.1.2.18"}, "loopback": {a.Loopback, "10.1.2.19"}, "dialer": {a.Dialer, "10.1.2.20"}, "host": {a.Host, "10.1.2.30"}} {
		if c.got.String() != c.want {
			t.Errorf("%s: got %v, want %s", name, c.got, c.want)
		}
	}
}

func TestOutbound(t *testing.T) {
	a := Plan(netip.MustParsePrefix("192.168.127.0/24"))
	for dst, want := range map[string][]string{
		"192.168.127.254:80": {"127.0.0.1:80", "[::1]:80"},
		"192.168.127.1:80":   {"127.0.0.1:80", "[::1]:80"},
		"192.168.127.9:80":   nil,
		"192.168.127.2:80":   nil,
		"169.254.169.254:80": nil,
		"127.0.0.1:80":       nil,
		"224.0.0.251:5353":   nil,
		"255.255.255.255:67": nil,
		"0.0.0.0:1":          nil,
		"192.0.2.1:443":      {"192.0.2.1:443"},
		"192.168.1.1:22":     {"192.168.1.1:22"},
	} {
		var got []string
		for _, t := range a.outbound(netip.MustParseAddrPort(dst)) {
			got = append(got, t.String())
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: got %v, want %v", dst, got, want)
		}
	}
}

func TestDialGuest(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(t, g, at, echo)
	c, err := n.Dial(testContext(t), at)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	sum := sha256.New()
	if k, err := c.WriteTo(sum); err != nil || k != int64(len(data)) {
		t.Fatalf("read %d bytes: %v", k, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("the bytes changed on the way")
	}
	if n.Connections() != 1 {
		t.Errorf("%d connections are counted", n.Connections())
	}
	_ = c.Close()
	if n.Connections() != 0 {
		t.Errorf("%d connections are counted after the end", n.Connections())
	}
	if received, sent := n.Traffic(); received < uint64(len(data)) || sent < uint64(len(data)) {
		t.Errorf("traffic is %d received, %d sent", received, sent)
	}
}

func TestDialRefused(t *testing.T) {
	n, _ := pair(t, nil)
	_, err := n.Dial(testContext(t), netip.AddrPortFrom(n.Guest, 81))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

func TestDialEnds(t *testing.T) {
	n, _ := pair(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := n.Dial(ctx, netip.MustParseAddrPort("192.168.127.77:80")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", c, err)
	}
}

// hostPair are the two ends of a TCP connection of the host's.
func hostPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// joined is a client on the host whose connection is carried to a server in the guest.
func joined(t testing.TB, n *Network, at netip.AddrPort) (*net.TCPConn, <-chan struct{}) {
	t.Helper()
	guest, err := n.Dial(testContext(t), at)
	if err != nil {
		t.Fatal(err)
	}
	client, server := hostPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.relay.Join(server, guest)
	}()
	t.Cleanup(func() { client.Close(); guest.Reset(); <-done })
	return client, done
}

func await(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: does not happen", what)
	}
}

func TestHalfClose(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(t, g, at, func(c net.Conn) {
		got, _ := io.ReadAll(c) // until the client has said all
		_, _ = c.Write(append([]byte("got "), got...))
		_ = c.Close()
	})
	client, done := joined(t, n, at)
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(client); err != nil || string(answer) != "got hello" {
		t.Errorf("got %q, %v", answer, err)
	}
	await(t, "the end of the relay", done)
}

func TestResetOfTheClientReachesTheGuest(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	ended := make(chan error, 1)
	serve(t, g, at, func(c net.Conn) {
		defer c.Close()
		_, _ = c.Write([]byte("x"))
		_, err := io.ReadAll(c)
		ended <- err
	})
	client, done := joined(t, n, at)
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = client.SetLinger(0)
	_ = client.Close()
	await(t, "the end of the relay", done)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the guest sees an orderly end")
		}
	case <-time.After(patience):
		t.Error("the guest sees nothing")
	}
}

func TestResetOfTheGuestReachesTheClient(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(t, g, at, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.Close() // with a byte unread: a reset
	})
	client, done := joined(t, n, at)
	if _, err := client.Write([]byte("xy")); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %q, %v", got, err)
	}
	await(t, "the end of the relay", done)
}

func TestEndOfTheGuestReachesTheClient(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(t, g, at, func(c net.Conn) { _ = c.Close() })
	client, _ := joined(t, n, at)
	if got, err := io.ReadAll(client); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBackPressure(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	release := make(chan struct{})
	counted := make(chan int64, 1)
	serve(t, g, at, func(c net.Conn) {
		<-release // reads nothing until then
		k, _ := io.Copy(io.Discard, c)
		counted <- k
		_ = c.Close()
	})
	client, _ := joined(t, n, at)
	const total = 64 << 20
	_ = client.SetWriteDeadline(time.Now().Add(2 * time.Second))
	written, err := client.Write(make([]byte, total))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes were taken though nobody reads: %v", written, err)
	}
	_ = client.CloseWrite()
	close(release)
	select {
	case k := <-counted:
		if k != int64(written) {
			t.Errorf("%d bytes were taken, %d arrived", written, k)
		}
	case <-time.After(patience):
		t.Error("the bytes do not arrive")
	}
}

func TestGuestReachesTheHost(t *testing.T) {
	n, g := pair(t, nil)
	for _, network := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", network)
		if err != nil {
			t.Logf("%s: %v", network, err)
			continue
		}
		defer l.Close()
		go accept(l, echo)
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		for _, host := range []netip.Addr{n.Host, n.Gateway} {
			c, err := g.Dial(testContext(t), netip.AddrPortFrom(host, port))
			if err != nil {
				t.Errorf("%s through %s: %v", network, host, err)
				continue
			}
			_, _ = c.Write([]byte("ping"))
			buf := make([]byte, 4)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
				t.Errorf("%s through %s: %q, %v", network, host, buf, err)
			}
			_ = c.Close()
		}
	}
}

func TestGuestIsRefused(t *testing.T) {
	n, g := pair(t, nil)
	for _, to := range []string{"169.254.169.254:80", "192.168.127.200:80"} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if c, err := g.Dial(ctx, netip.MustParseAddrPort(to)); err == nil {
			c.Close()
			t.Errorf("the guest reaches %s", to)
		}
		cancel()
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(free.Addr().(*net.TCPAddr).Port)
	_ = free.Close()
	if c, err := g.Dial(testContext(t), netip.AddrPortFrom(n.Host, port)); err == nil {
		c.Close()
		t.Error("a port that nobody listens on takes connections")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Error("a port that nobody listens on hangs")
	}
}

func TestGuestSendsDatagrams(t *testing.T) {
	n, g := pair(t, nil)
	out, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	go echoPackets(out)
	c, err := g.DialPacket(netip.AddrPortFrom(n.Host, uint16(out.LocalAddr().(*net.UDPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "ping")
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		k, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:k], from)
	}
}

// exchange sends a datagram until it comes back: they may be lost.
func exchange(t testing.TB, c net.Conn, text string) {
	t.Helper()
	buf := make([]byte, 65535)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if k, err := c.Read(buf); err == nil {
			if string(buf[:k]) != text {
				t.Errorf("got %q", buf[:k])
			}
			return
		}
	}
	t.Error("no datagram comes back")
}

func TestDatagramsToTheGuest(t *testing.T) {
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 5000)
	in, err := g.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	go echoPackets(in)
	c, err := n.DialPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange(t, c, "ping")
}

// TestIdleConnections holds many connections open and counts what they cost.
func TestIdleConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	n, g := pair(t, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(t, g, at, echo)
	const count = 2000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	clients := make([]*net.TCPConn, count)
	for i := range clients {
		clients[i], _ = joined(t, n, at)
	}
	for _, c := range []*net.TCPConn{clients[0], clients[count/2], clients[count-1]} {
		exchangeStream(t, c)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The fake guest's half is counted, too.
	each := int64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / count
	t.Logf("%d bytes for each idle connection, fake guest included", each)
	if each > 128<<10 {
		t.Errorf("an idle connection costs %d KiB", each>>10)
	}
}

func exchangeStream(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("got %q, %v", buf, err)
	}
}

func BenchmarkThroughput(b *testing.B) {
	n, g := pair(b, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(b, g, at, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	client, _ := joined(b, n, at)
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLatency(b *testing.B) {
	n, g := pair(b, nil)
	at := netip.AddrPortFrom(n.Guest, 80)
	serve(b, g, at, echo)
	client, _ := joined(b, n, at)
	buf := make([]byte, 100)
	for b.Loop() {
		_, _ = client.Write(buf)
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// TestQuiesce: open connections of both directions are reset on both sides, those that the guest begins are not answered until the network opens again, and
// the guest can be reached all the time.
func TestQuiesce(t *testing.T) {
	n, g := pair(t, nil)
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	taken := make(chan net.Conn, 4)
	go accept(outside, func(c net.Conn) { taken <- c })
	port := outside.Addr().(*net.TCPAddr).AddrPort().Port()
	inside := netip.AddrPortFrom(n.Guest, 80)
	within := make(chan net.Conn, 4)
	serve(t, g, inside, func(c net.Conn) { within <- c })

	out, err := g.Dial(testContext(t), netip.AddrPortFrom(n.Host, port))
	if err != nil {
		t.Fatal(err)
	}
	in, err := n.Dial(testContext(t), inside)
	if err != nil {
		t.Fatal(err)
	}
	if n.Outbound() != 1 || n.Connections() != 2 {
		t.Errorf("%d outbound of %d", n.Outbound(), n.Connections())
	}
	n.Quiesce()
	for name, c := range map[string]net.Conn{"the guest's": out, "the server's of it": <-taken, "the guest's server's": <-within, "ours": in} {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s connection lives on: %v", name, err)
		}
		_ = c.Close()
	}
	if n.Outbound() != 0 {
		t.Errorf("%d outbound", n.Outbound())
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := g.Dial(testContext(t), netip.AddrPortFrom(n.Host, port))
		if err == nil {
			_ = c.Close()
		}
		dialed <- err
	}()
	again, err := n.Dial(testContext(t), inside)
	if err != nil {
		t.Errorf("the guest cannot be reached: %v", err)
	} else {
		_ = again.Close()
	}
	select {
	case err := <-dialed:
		t.Errorf("the guest got an answer: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	n.Reopen()
	if err := <-dialed; err != nil {
		t.Errorf("after the network was opened again: %v", err)
	}
}

// TestFlowsAreBounded: a guest that sends from ever more ports has no more than so many flows, and other connections go on.
func TestFlowsAreBounded(t *testing.T) {
	n, _ := pair(t, nil)
	n.flows.Store(maxFlows - 1)
	if !n.beginFlow() {
		t.Fatal("the last flow is refused")
	}
	if n.beginFlow() {
		t.Error("there are too many flows")
	}
	n.endFlow()
	if !n.beginFlow() {
		t.Error("a flow that has ended still counts")
	}
	n.endFlow()
}
