// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestForeign(t *testing.T) {
	_, bridge, _ := net.ParseCIDR("172.17.0.1/16")
	inside := []*net.IPNet{bridge, {IP: net.IPv4(192, 168, 127, 2).To4(), Mask: net.CIDRMask(32, 32)}}
	socket := func(state uint8, from uint16, to string) *netlink.Socket {
		return &netlink.Socket{State: state, ID: netlink.SocketID{SourcePort: from, Destination: net.ParseIP(to).To4()}}
	}
	const established, listening = 1, 10
	for name, c := range map[string]struct {
		s    *netlink.Socket
		want bool
	}{
		"outside":               {socket(established, 40000, "203.0.113.1"), true},
		"the host":              {socket(established, 80, "192.168.127.254"), true},
		"being opened":          {socket(2, 40000, "203.0.113.1"), true},
		"another container":     {socket(established, 40000, "172.17.0.9"), false},
		"the machine itself":    {socket(established, 40000, "192.168.127.2"), false},
		"the loopback":          {socket(established, 40000, "127.0.0.1"), false},
		"a listener":            {socket(listening, 80, "0.0.0.0"), false},
		"the agent's own":       {socket(established, 22, "192.168.127.253"), false},
		"the agent's own, fast": {socket(established, 24, "192.168.127.253"), false},
	} {
		if got := foreign(c.s, inside); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// inOwnNetwork runs the test again, in a network of its own: this one's connections are not to be ended.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv("DEV_TEST_OWN_NETWORK") != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "DEV_TEST_OWN_NETWORK=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || strings.Contains(string(out), "--- SKIP") {
		t.Skipf("needs a network of its own: %v: %s", err, out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestConnectionsEnd: those to the outside, and no others.
func TestConnectionsEnd(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Skip(err)
	}
	// The loopback takes all: what is not named inside stands for the outside.
	for _, address := range []string{"127.0.0.1/8", "172.17.0.1/16", "203.0.113.1/32"} {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrReplace(lo, a); err != nil {
			t.Skip(err)
		}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Skip(err)
	}
	_, bridge, _ := net.ParseCIDR("172.17.0.1/16")
	ends := map[string][2]net.Conn{}
	for _, host := range []string{"127.0.0.1", "172.17.0.1", "203.0.113.1"} {
		l, err := net.Listen("tcp4", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ends[host] = [2]net.Conn{c, s}
	}
	if err := endConnections([]*net.IPNet{bridge}); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			t.Skipf("this kernel does not end connections: %v", err)
		}
		t.Fatal(err)
	}
	for host, pair := range ends {
		_, err := pair[0].Write([]byte("x"))
		if err == nil {
			_ = pair[1].SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = io.ReadFull(pair[1], make([]byte, 1))
		}
		if ended := err != nil; ended != (host == "203.0.113.1") {
			t.Errorf("the connection to %s: %v", host, err)
		}
	}
}
