// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package portholder

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0200A8C0:0016 0300A8C0:D431 01 00000000:00000000 02:000A8E4A 00000000     0        0 777 2 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0
   3: broken
`

func TestParseSockets(t *testing.T) {
	want := []socket{
		{netip.MustParseAddrPort("127.0.0.1:8080"), "0A", "12345"},
		{netip.MustParseAddrPort("192.168.0.2:22"), "01", "777"},
		{netip.MustParseAddrPort("[::1]:80"), "0A", "99"},
	}
	if got := parseSockets(strings.NewReader(procTCP)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add(procTCP)
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseSockets(strings.NewReader(text)) {
			if !s.local.IsValid() {
				t.Errorf("%q: invalid address", text)
			}
		}
	})
}

func TestPortHolder(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	tests := map[string]struct {
		addr string
		port int
		held bool
	}{
		"tcp": {"0.0.0.0", tcp.Addr().(*net.TCPAddr).Port, true},
		"udp": {"127.0.0.1", udp.LocalAddr().(*net.UDPAddr).Port, true},
	}
	for protocol, tt := range tests {
		p, ok := Find(protocol, netip.MustParseAddr(tt.addr), uint16(tt.port))
		if !ok || p.PID != os.Getpid() || p.Name == "" {
			t.Errorf("%s: got %+v, %v", protocol, p, ok)
		}
	}
	if p, ok := Find("tcp", netip.MustParseAddr("127.0.0.2"), uint16(tests["tcp"].port)); ok {
		t.Errorf("another address is held by %v", p)
	}
}
