// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"
	"golang.org/x/crypto/ssh"
	keyring "golang.org/x/crypto/ssh/agent"

	"github.com/seed71221737/dev/hostagent"
)

func TestRunAndStop(t *testing.T) {
	m := newFakeMachine(t)
	starting := make(chan struct{})
	start := m.o.Start
	m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
		select {
		case <-starting:
		case <-ctx.Done():
		}
		return start(ctx, l)
	}
	m.begin()
	m.await("the control socket", func(*hostagent.Status) bool { return true })
	var got []string
	followed := make(chan error, 1)
	go func() {
		first := true
		followed <- m.client.Events(context.Background(), func(e hostagent.Event) {
			if first {
				close(starting) // the stream is open: go on
				first = false
			}
			switch e.Kind {
			case "stage":
				got = append(got, string(e.Stage))
			case "phase":
				got = append(got, string(e.Phase))
			}
			if e.Phase == hostagent.Running {
				if err := m.client.Stop(context.Background(), time.Minute); err != nil {
					t.Error(err)
				}
			}
		})
	}()
	if err := m.end(); err != nil {
		t.Fatal(err)
	}
	if err := <-followed; err != nil {
		t.Error(err)
	}
	want := []string{"starting", "link", "engine", "shares", "forwards", "running", "stopping", "stopped"}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if pressed, killed := m.vm.was(); pressed || killed {
		t.Error("the guest was not just asked")
	}
	for _, socket := range []string{m.o.Control, m.o.Docker, m.o.Network} {
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", filepath.Base(socket), err)
		}
	}
	if _, err := m.client.Status(context.Background()); !errors.Is(err, hostagent.ErrNotRunning) {
		t.Errorf("a client of an agent that ended: %v", err)
	}
}

func TestStatus(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	s, err := m.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != 1 || s.Machine != "test" || s.Engine != "99.1" || s.Docker != "unix://"+m.o.Docker || s.Guest != "192.168.127.2" || s.AgentPID != os.Getpid() {
		t.Errorf("status %+v", s)
	}
	if s.Metrics == nil || s.Metrics.MemoryBytes == 0 || s.Metrics.CPU == 0 || s.Metrics.Connections == 0 {
		t.Errorf("metrics %+v", s.Metrics)
	}
	problems, err := m.client.Health(t.Context())
	// The guest here has this host's own disk, which may be as full as it likes.
	problems = slices.DeleteFunc(problems, func(p hostagent.Problem) bool { return strings.Contains(p.Text, "the data disk is") })
	if err != nil || len(problems) != 0 {
		t.Errorf("health %+v, %v", problems, err)
	}
}

func TestOneAgentOnly(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	if err := Run(t.Context(), m.o); !errors.Is(err, ErrRunning) {
		t.Errorf("a second agent: %v", err)
	}
}

func TestStaleSocketsAreReplaced(t *testing.T) {
	m := newFakeMachine(t)
	for _, path := range []string{m.o.Control, m.o.Docker, m.o.Network} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	m.run()
}

func TestStopEscalates(t *testing.T) {
	for name, c := range map[string]struct {
		ignoreButton, pressed, killed bool
	}{"to the power button": {false, true, false}, "to a kill": {true, true, true}} {
		t.Run(name, func(t *testing.T) {
			if c.ignoreButton && testing.Short() {
				t.Skip("waits for the button's deadline")
			}
			m := newFakeMachine(t)
			m.vm.ignorePowerOff, m.vm.ignoreButton = true, c.ignoreButton
			m.run()
			if err := m.client.Stop(t.Context(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
			if pressed, killed := m.vm.was(); pressed != c.pressed || killed != c.killed {
				t.Errorf("pressed %v, killed %v", pressed, killed)
			}
		})
	}
}

func TestKillOvertakesAStop(t *testing.T) {
	m := newFakeMachine(t)
	m.vm.ignorePowerOff, m.vm.ignoreButton = true, true
	m.run()
	if err := m.client.Stop(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	m.await("the stop", func(s *hostagent.Status) bool { return s.Phase == hostagent.Stopping })
	if err := m.client.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
}

func TestContextStops(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	m.cancel()
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if pressed, killed := m.vm.was(); pressed || killed {
		t.Error("the machine was not stopped in order")
	}
}

func TestStopWhileStarting(t *testing.T) {
	m := newFakeMachine(t)
	m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) { return m.vm, nil } // nobody is there
	m.begin()
	m.await("the link stage", func(s *hostagent.Status) bool { return s.Stage == hostagent.StageLink })
	if err := m.client.Stop(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if pressed, _ := m.vm.was(); !pressed {
		t.Error("a guest that does not answer got no power button")
	}
}

func TestAnOrderShowsAtOnce(t *testing.T) {
	m := newFakeMachine(t)
	proceed := make(chan struct{})
	m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) {
		<-proceed // the agent is busy with the start when the order comes
		return m.vm, nil
	}
	m.begin()
	m.await("the start of the VM", func(s *hostagent.Status) bool { return s.Stage == hostagent.StageProcess })
	err := m.client.Stop(t.Context(), time.Millisecond)
	s, statusErr := m.client.Status(t.Context())
	close(proceed)
	if err != nil || statusErr != nil {
		t.Fatal(err, statusErr)
	}
	if s.Phase != hostagent.Stopping {
		t.Errorf("after the order was taken the machine is %s", s.Phase)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
}

func TestFailedStarts(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*fakeMachine)
		stage  hostagent.Stage
		text   string
	}{
		"no hypervisor": {func(m *fakeMachine) {
			m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) { return nil, errors.New("no qemu") }
		}, hostagent.StageProcess, "no qemu"},
		"no seed": {func(m *fakeMachine) {
			m.o.WriteSeed = func(SeedParts) error { return errors.New("disk full") }
		}, hostagent.StageProcess, "disk full"},
		"the VM ends": {func(m *fakeMachine) {
			m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) {
				m.vm.err = errors.New("exit status 1")
				m.vm.off()
				return m.vm, nil
			}
		}, hostagent.StageLink, "exit status 1"},
		"nobody answers": {func(m *fakeMachine) {
			m.o.Deadlines = map[hostagent.Stage]time.Duration{hostagent.StageLink: time.Second}
			m.o.Start = func(context.Context, hostagent.Link) (hostagent.VM, error) { return m.vm, nil }
		}, hostagent.StageLink, "not done after 1s"},
		"another guest": {func(m *fakeMachine) {
			other, _ := newKeyPair(m.t)
			m.o.HostKey = other.PublicKey()
		}, hostagent.StageLink, "host key mismatch"},
		"no engine": {func(m *fakeMachine) {
			m.o.Deadlines = map[hostagent.Stage]time.Duration{hostagent.StageEngine: time.Second}
			m.o.engineSocket = m.file("nothing.sock")
		}, hostagent.StageEngine, "the engine does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newFakeMachine(t)
			c.damage(m)
			release := make(chan struct{})
			start := m.o.Start
			m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
				<-release
				return start(ctx, l)
			}
			write := m.o.WriteSeed
			m.o.WriteSeed = func(p SeedParts) error {
				<-release
				return write(p)
			}
			m.begin()
			m.await("the control socket", func(*hostagent.Status) bool { return true })
			var last hostagent.Event
			followed := make(chan error, 1)
			began := false
			go func() {
				followed <- m.client.Events(context.Background(), func(e hostagent.Event) {
					last = e
					if !began {
						close(release)
						began = true
					}
				})
			}()
			err := m.end()
			if err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), string(c.stage)) {
				t.Errorf("error %v", err)
			}
			<-followed
			if last.Phase != hostagent.Failed || last.Stage != c.stage || last.Problem == nil || !strings.Contains(last.Text, c.text) {
				t.Errorf("the last event is %+v", last)
			}
		})
	}
}

func TestTheMachineEndsByItself(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	m.vm.err = errors.New("killed")
	m.vm.off()
	if err := m.end(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

// freePort is a port that nobody has at the moment.
func freePort(t *testing.T, network, host string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Skip(err)
		}
		defer c.Close()
		return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
	}
	l, err := net.Listen(network, net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

func number(t *testing.T, port string) uint16 {
	t.Helper()
	var n uint16
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// greet serves a word at an address of the guest.
func (m *fakeMachine) greet(at netip.AddrPort, word string) {
	m.t.Helper()
	l, err := m.vm.guest.Listen(at)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, word)
			_ = c.Close()
		}
	}()
}

func fetch(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Errorf("dial %s: %v", address, err)
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read from %s: %v", address, err)
	}
	return string(text)
}

func TestPublishedPorts(t *testing.T) {
	m := newFakeMachine(t)
	wild, loop := freePort(t, "tcp", "0.0.0.0"), freePort(t, "tcp", "127.0.0.1")
	m.vm.engine.start("before", published("80/tcp", "", wild)) // runs already when the agent comes
	m.run()
	m.greet(netip.AddrPortFrom(m.at.Guest, number(t, wild)), "all")
	m.greet(netip.AddrPortFrom(m.at.Loopback, number(t, loop)), "loopback")
	served := func(n int) func(*hostagent.Status) bool {
		return func(s *hostagent.Status) bool { return len(s.Ports) == n }
	}
	m.await("the first port", served(1))
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", loop))
	s := m.await("the second port", served(2))
	for _, p := range s.Ports {
		if p.Problem != "" || p.Container == "" || p.Guest == "" {
			t.Errorf("port %+v", p)
		}
	}
	if got := fetch(t, "127.0.0.1:"+wild); got != "all" {
		t.Errorf("wildcard: got %q", got)
	}
	if got := fetch(t, "127.0.0.1:"+loop); got != "loopback" {
		t.Errorf("loopback: got %q", got)
	}
	m.vm.engine.stop("web")
	m.await("the end of the port", served(1))
	if c, err := net.Dial("tcp", "127.0.0.1:"+loop); err == nil {
		c.Close()
		t.Error("a port is served after its container ended")
	}
}

// TestPortsFollowEvents: a port comes with the engine's event, by one look at the container that it is about, and nobody asks between events.
func TestPortsFollowEvents(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	opened := make(chan hostagent.Event, 64)
	following := make(chan struct{})
	followed := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(followed)
		begun := sync.OnceFunc(func() { close(following) })
		_ = m.client.Events(ctx, func(e hostagent.Event) {
			begun()
			if e.Kind == "port" {
				opened <- e
			}
		})
	}()
	defer func() { cancel(); <-followed }()
	<-following
	next := func(text, host string) {
		t.Helper()
		select {
		case e := <-opened:
			if e.Text != text || e.Port.Host != host {
				t.Errorf("event %q of %+v, want %q of %s", e.Text, e.Port, text, host)
			}
		case <-time.After(patience):
			t.Fatalf("no event: %s of %s", text, host)
		}
	}
	var asked []string
	for i, port := range []string{freePort(t, "tcp", "127.0.0.1"), freePort(t, "tcp", "127.0.0.1")} {
		id, host := fmt.Sprintf("c%d", i), "127.0.0.1:"+port
		m.greet(netip.AddrPortFrom(m.at.Loopback, number(t, port)), id)
		m.vm.engine.start(id, published("80/tcp", "127.0.0.1", port))
		next("open", host)
		if got := fetch(t, host); got != id { // whoever hears of it can use it
			t.Errorf("got %q, want %q", got, id)
		}
		m.vm.engine.stop(id)
		next("closed", host)
		asked = append(asked, "inspect "+id)
	}
	got := slices.DeleteFunc(m.vm.engine.questions(), func(q string) bool { return q == "events" || q == "list" })
	if !slices.Equal(got, asked) || len(m.vm.engine.questions()) != len(asked)+2 {
		t.Errorf("asked %q, want one list, one stream and %q", m.vm.engine.questions(), asked)
	}
}

// TestNoEventIsMissed: a container that starts after the list was made and before the engine collects events, and one that could not be looked at.
func TestNoEventIsMissed(t *testing.T) {
	m := newFakeMachine(t)
	port := freePort(t, "tcp", "127.0.0.1")
	started := sync.OnceFunc(func() {
		for end := time.Now().Add(patience); !slices.Contains(m.vm.engine.questions(), "list") && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		m.vm.engine.start("between", published("80/tcp", "127.0.0.1", port))
	})
	m.vm.engine.beforeEvents = started
	m.vm.engine.failures = 1
	m.run()
	m.await("the port", func(s *hostagent.Status) bool {
		return len(s.Ports) == 1 && s.Ports[0].Container == "between" && s.Phase == hostagent.Running
	})
}

func TestPublishedPortV6(t *testing.T) {
	m := newFakeMachine(t)
	port := freePort(t, "tcp6", "::")
	m.run()
	m.greet(netip.AddrPortFrom(m.at.Guest, number(t, port)), "six")
	m.vm.engine.start("web", published("80/tcp", "::", port))
	m.await("the port", func(s *hostagent.Status) bool { return len(s.Ports) == 1 })
	if got := fetch(t, "[::1]:"+port); got != "six" {
		t.Errorf("got %q", got)
	}
}

func TestPublishedPortUDP(t *testing.T) {
	m := newFakeMachine(t)
	port := freePort(t, "udp", "127.0.0.1")
	m.run()
	in, err := m.vm.guest.ListenPacket(netip.AddrPortFrom(m.at.Guest, number(t, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			k, from, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = in.WriteTo(append([]byte("re: "), buf[:k]...), from)
		}
	}()
	m.vm.engine.start("dns", published("53/udp", "0.0.0.0", port))
	m.await("the port", func(s *hostagent.Status) bool { return len(s.Ports) == 1 })
	var clients []net.Conn
	for range 3 {
		c, err := net.Dial("udp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	for i, c := range clients {
		if got, want := ask(t, c, fmt.Sprint(i)), fmt.Sprintf("re: %d", i); got != want {
			t.Errorf("client %d: got %q", i, got)
		}
	}
	m.vm.engine.stop("dns")
	m.await("the end of the port", func(s *hostagent.Status) bool { return len(s.Ports) == 0 })
}

func TestPortsThatAreNotCarried(t *testing.T) {
	m := newFakeMachine(t)
	port := freePort(t, "udp6", "::1")
	m.run()
	m.vm.engine.start("dns", published("53/udp", "::1", port))
	m.vm.engine.start("phone", published("5060/sctp", "0.0.0.0", "5060"))
	s := m.await("the problems", func(s *hostagent.Status) bool { return len(s.Problems) == 2 && len(s.Ports) == 2 })
	for i, want := range []string{"port 0.0.0.0:5060/sctp of container \"phone\" is not served: SCTP", "port [::1]:" + port + "/udp of container \"dns\" is not served: only TCP"} {
		if p := s.Problems[i]; p.Code != "port-unsupported" || !strings.HasPrefix(p.Text, want) || p.Hint == "" || s.Ports[i].Problem != p.Text {
			t.Errorf("problem %+v, port %+v", p, s.Ports[i])
		}
	}
	m.vm.engine.stop("dns")
	m.vm.engine.stop("phone")
	m.await("the end of the problems", func(s *hostagent.Status) bool { return s.Phase == hostagent.Running && len(s.Ports) == 0 })
}

// ask sends a datagram until an answer comes.
func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_, _ = c.Write([]byte(text))
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if k, err := c.Read(buf); err == nil {
			return string(buf[:k])
		}
	}
	return ""
}

func TestPortConflict(t *testing.T) {
	m := newFakeMachine(t)
	holder, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	taken, free := fmt.Sprint(holder.Addr().(*net.TCPAddr).Port), freePort(t, "tcp", "127.0.0.1")
	m.run()
	m.greet(netip.AddrPortFrom(m.at.Loopback, number(t, taken)), "at last")
	m.greet(netip.AddrPortFrom(m.at.Loopback, number(t, free)), "works")
	m.vm.engine.start("web", api.PortMap{
		api.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: taken}},
		api.MustParsePort("81/tcp"): {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: free}},
	})
	s := m.await("the conflict", func(s *hostagent.Status) bool { return s.Phase == hostagent.Degraded && len(s.Ports) == 2 })
	if p := s.Problems[0]; p.Code != "port-taken" || !strings.Contains(p.Text, taken) || !strings.Contains(p.Text, fmt.Sprintf("(pid %d)", os.Getpid())) || p.Hint == "" {
		t.Errorf("problem %+v", p)
	}
	if got := fetch(t, "127.0.0.1:"+free); got != "works" {
		t.Errorf("the other port: got %q", got)
	}
	_ = holder.Close()
	m.await("the port to be served", func(s *hostagent.Status) bool { return s.Phase == hostagent.Running })
	if got := fetch(t, "127.0.0.1:"+taken); got != "at last" {
		t.Errorf("the freed port: got %q", got)
	}
}

// hijack upgrades a connection to the engine, as attach and exec do.
func hijack(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "POST /v1.52/echo HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	return r
}

func TestDockerSocket(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	if info, err := os.Stat(m.o.Docker); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: m.o.Docker, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := hijack(t, c)
	if _, err := io.WriteString(c, "standard input"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil { // the end of standard input: the output goes on
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "standard inputbye" {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestDockerSocketBySSH: a fast link that lets nobody in, because others hold its places say, does not keep anybody from the engine.
func TestDockerSocketBySSH(t *testing.T) {
	m := newFakeMachine(t)
	m.full = true
	m.run()
	for range 2 {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: m.o.Docker, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := hijack(t, c)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != "bye" {
			t.Errorf("got %q, %v", text, err)
		}
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key, a.cert = a.sign(template, nil)
	return a
}

func (a *authority) sign(template *x509.Certificate, parent *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// leaf makes a certificate for a server or a client.
func (a *authority) leaf(use x509.ExtKeyUsage) tls.Certificate {
	key, cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLSSocket(t *testing.T) {
	m := newFakeMachine(t)
	ca, stranger := newAuthority(t), newAuthority(t)
	m.o.TLS = t.TempDir()
	server := ca.leaf(x509.ExtKeyUsageServerAuth)
	key, err := x509.MarshalECPrivateKey(server.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(m.o.TLS, "ca.pem"), "CERTIFICATE", ca.cert.Raw)
	writePEM(t, filepath.Join(m.o.TLS, "server.pem"), "CERTIFICATE", server.Leaf.Raw)
	writePEM(t, filepath.Join(m.o.TLS, "server-key.pem"), "EC PRIVATE KEY", key)
	m.run()
	s, err := m.client.Status(t.Context())
	if err != nil || s.TCP == "" {
		t.Fatalf("status %+v, %v", s, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for name, certs := range map[string][]tls.Certificate{"nobody": nil, "a stranger": {stranger.leaf(x509.ExtKeyUsageClientAuth)}} {
		c, err := tls.Dial("tcp", s.TCP, &tls.Config{RootCAs: roots, Certificates: certs})
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // TLS 1.3 says it with the first bytes
			_ = c.Close()
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s is let in: %v", name, err)
		}
	}
	c, err := tls.Dial("tcp", s.TCP, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{ca.leaf(x509.ExtKeyUsageClientAuth)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := hijack(t, c)
	_, _ = io.WriteString(c, "over TLS, ")
	_ = c.CloseWrite()
	if text, err := io.ReadAll(r); err != nil || string(text) != "over TLS, bye" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestTLSWithoutCertificates(t *testing.T) {
	m := newFakeMachine(t)
	m.o.TLS = t.TempDir()
	m.begin()
	s := m.await("the machine to run", func(s *hostagent.Status) bool { return s.Phase == hostagent.Degraded })
	if p := s.Problems[0]; p.Code != "tls-unavailable" || !strings.Contains(p.Hint, "regenerate-certs") {
		t.Errorf("problem %+v", p)
	}
}

func TestSharesWithoutVirtiofsd(t *testing.T) {
	m := newFakeMachine(t)
	m.o.Shares = []Share{{Tag: "gone", Host: m.file("nothing")}}
	m.begin()
	s := m.await("the machine to run", func(s *hostagent.Status) bool { return s.Phase == hostagent.Degraded })
	if p := s.Problems[0]; p.Code != "share-unavailable" || p.Hint == "" {
		t.Errorf("problem %+v", p)
	}
}

func TestSSHPort(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	s, err := m.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.SSH, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(m.o.Key)}, HostKeyCallback: ssh.FixedHostKey(m.o.HostKey), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestKeysAreOffered(t *testing.T) {
	m := newFakeMachine(t)
	keys := keyring.NewKeyring()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(keyring.AddedKey{PrivateKey: private, Comment: "the user's"}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.file("host-keys.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = keyring.ServeAgent(keys, c); c.Close() }()
		}
	}()
	m.o.Env = []string{"SSH_AUTH_SOCK=" + l.Addr().String()}
	m.run()
	c, err := net.Dial("unix", m.file("keys.sock")) // the guest's side
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	list, err := keyring.NewClient(c).List()
	if err != nil || len(list) != 1 || list[0].Comment != "the user's" {
		t.Errorf("the guest sees %v, %v", list, err)
	}
}
