// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/network"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/network"
)

var testAddresses = network.Plan(netip.MustParsePrefix("192.168.127.0/24"))

func ports(specs ...string) api.PortMap {
	m := api.PortMap{}
	for _, s := range specs { // HOST:PORT=CONTAINER
		host, port, _ := strings.Cut(s, "=")
		b := api.PortBinding{HostPort: host}
		if a, err := netip.ParseAddrPort(host); err == nil {
			b = api.PortBinding{HostIP: a.Addr(), HostPort: fmt.Sprint(a.Port())}
		}
		p := api.MustParsePort(port)
		m[p] = append(m[p], b)
	}
	return m
}

func show(fs []forward) string {
	var lines []string
	for _, f := range fs {
		line := fmt.Sprintf("%s %s → %s (%s)", f.Protocol, f.Host, f.Guest, f.Container)
		if f.Inside {
			line += " inside"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestWantedForwards(t *testing.T) {
	got := show(wantedForwards(map[string]containerPorts{
		"1": {"web", ports("0.0.0.0:80=8080/tcp", "[::]:80=8080/tcp", "127.0.0.1:81=81/tcp", "[::1]:82=82/tcp", "192.168.1.5:83=83/tcp", "127.0.0.2:84=84/tcp", "90=90/udp")},
		"2": {"late", ports("0.0.0.0:80=1/tcp")}, // the same place: "late" comes first by name
		"3": {"none", ports("0.0.0.0:0=1/tcp", "=2/tcp")},
		"4": {"sctp", ports("0.0.0.0:5=5/sctp")},
	}, testAddresses))
	want := `sctp 0.0.0.0:5 → 192.168.127.2:5 (sctp)
tcp 0.0.0.0:80 → 192.168.127.2:80 (late)
tcp 127.0.0.1:81 → 192.168.127.3:81 (web)
tcp 127.0.0.2:84 → 127.0.0.2:84 (web) inside
tcp 192.168.1.5:83 → 192.168.1.5:83 (web)
tcp [::]:80 → 192.168.127.2:80 (web)
tcp [::1]:82 → [::1]:82 (web) inside
udp 0.0.0.0:90 → 192.168.127.2:90 (web)`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDiffForwards(t *testing.T) {
	at := func(port uint16, container string) forward {
		host := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
		guest, inside := guestSide(host, testAddresses)
		return forward{place{"tcp", host}, guest, inside, container}
	}
	have := map[place]forward{}
	for _, f := range []forward{at(1, "stays"), at(2, "goes"), at(3, "old")} {
		have[f.place] = f
	}
	end, begin := diffForwards(have, []forward{at(1, "stays"), at(3, "new"), at(4, "comes")})
	if got := fmt.Sprint(end); got != "[{tcp 0.0.0.0:2} {tcp 0.0.0.0:3}]" {
		t.Errorf("end %s", got)
	}
	if got := show(begin); got != show([]forward{at(3, "new"), at(4, "comes")}) {
		t.Errorf("begin %s", got)
	}
	if end, begin := diffForwards(have, slices.Collect(maps.Values(have))); len(end)+len(begin) > 0 {
		t.Errorf("nothing changed: end %v, begin %v", end, begin)
	}
}

func TestBorrowed(t *testing.T) {
	have := map[place]forward{}
	for _, f := range wantedForwards(map[string]containerPorts{"1": {"web", ports(
		"0.0.0.0:80=80/tcp", "127.0.0.1:81=81/tcp", "127.0.0.9:81=81/tcp", "[2001:db8::1]:82=82/tcp", "192.168.1.5:83=83/tcp", "10.0.0.1:84=84/udp", "192.168.1.5:85=85/tcp",
	)}}, testAddresses) {
		have[f.place] = f
	}
	if got := fmt.Sprint(borrowed(have)); got != "[10.0.0.1 192.168.1.5]" {
		t.Errorf("got %s", got)
	}
	script := addressScript([]netip.Addr{netip.MustParseAddr("10.0.0.1")}, []netip.Addr{netip.MustParseAddr("10.0.0.2")})
	if want := "ip route del local 10.0.0.2 dev lo table local 2>/dev/null || true\nip route replace local 10.0.0.1 dev lo table local\n"; script != want {
		t.Errorf("script\n%s", script)
	}
}

func TestConcerns(t *testing.T) {
	for _, c := range []struct {
		m    events.Message
		id   string
		gone bool
	}{
		{events.Message{Type: "container", Action: "start", Actor: events.Actor{ID: "a"}}, "a", false},
		{events.Message{Type: "container", Action: "die", Actor: events.Actor{ID: "a"}}, "a", true},
		{events.Message{Type: "network", Action: "connect", Actor: events.Actor{ID: "net", Attributes: map[string]string{"container": "b"}}}, "b", false},
		{events.Message{Type: "network", Action: "create", Actor: events.Actor{ID: "net"}}, "", false},
	} {
		if id, gone := concerns(c.m); id != c.id || gone != c.gone {
			t.Errorf("%+v: got %q, %v", c.m, id, gone)
		}
	}
}

func TestPortProblem(t *testing.T) {
	low := forward{place: place{"tcp", netip.MustParseAddrPort("127.0.0.1:80")}, Container: "web"}
	p := portProblem(low, &os.SyscallError{Syscall: "bind", Err: fs.ErrPermission})
	if p.Code != "port-forbidden" || !strings.Contains(p.Text, `"web"`) || p.Hint == "" {
		t.Errorf("a low port: %+v", p)
	}
	if p := portProblem(low, errors.New("odd")); p.Code != "port-failed" || !strings.Contains(p.Text, "odd") {
		t.Errorf("another error: %+v", p)
	}
}

func TestGuestProxy(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want map[string]string
	}{
		{[]string{"HOME=/root", "NO_PROXY=example.com"}, nil},
		{[]string{"https_proxy=http://proxy.example:3128"}, map[string]string{
			"HTTPS_PROXY": "http://proxy.example:3128",
			"NO_PROXY":    "localhost,127.0.0.0/8,::1,192.168.127.0/24,host.docker.internal,gateway.docker.internal",
		}},
		{[]string{"http_proxy=http://lower:1", "HTTP_PROXY=http://user:pw@localhost:8080/", "ALL_PROXY=127.0.0.1:9", "no_proxy=.corp"}, map[string]string{
			"HTTP_PROXY": "http://user:pw@192.168.127.254:8080/", "ALL_PROXY": "http://192.168.127.254:9",
			"NO_PROXY": "localhost,127.0.0.0/8,::1,192.168.127.0/24,host.docker.internal,gateway.docker.internal,.corp",
		}},
		{[]string{"HTTP_PROXY=http://[::1]:8080"}, map[string]string{
			"HTTP_PROXY": "http://192.168.127.254:8080",
			"NO_PROXY":   "localhost,127.0.0.0/8,::1,192.168.127.0/24,host.docker.internal,gateway.docker.internal",
		}},
	} {
		if got := guestProxy(c.env, testAddresses); !maps.Equal(got, c.want) {
			t.Errorf("%q: got %q", c.env, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts("proc /proc proc rw 0 0\nhome /Users/anna\\040b virtiofs rw 0 0\nbroken\n")
	if want := map[string]bool{"/proc": true, "/Users/anna b": true}; !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestVirtiofsdArgs(t *testing.T) {
	share := Share{Tag: "home", Host: "/home/a,b", ReadOnly: true}
	for _, c := range []struct {
		server virtiofsd
		root   bool
		cache  string
		want   string
	}{
		{virtiofsd{}, true, "", `-f --socket-path=/s -o source=/home/a\,b -o cache=auto -o xattr -o announce_submounts -o sandbox=namespace`},
		{virtiofsd{}, false, "auto", `-f --socket-path=/s -o source=/home/a\,b -o cache=auto -o xattr -o announce_submounts -o sandbox=chroot`},
		{virtiofsd{rust: true, readOnly: true}, true, "watched", "--socket-path=/s --shared-dir=/home/a,b --cache=always --xattr --announce-submounts --inode-file-handles=never --sandbox=chroot --readonly"},
		{virtiofsd{rust: true}, false, "auto", "--socket-path=/s --shared-dir=/home/a,b --cache=auto --xattr --announce-submounts --inode-file-handles=never --sandbox=namespace"},
		{virtiofsd{}, true, "always", `-f --socket-path=/s -o source=/home/a\,b -o cache=always -o xattr -o announce_submounts -o sandbox=namespace`},
		{virtiofsd{}, true, "never", `-f --socket-path=/s -o source=/home/a\,b -o cache=none -o xattr -o announce_submounts -o sandbox=namespace`},
		{virtiofsd{rust: true}, false, "never", "--socket-path=/s --shared-dir=/home/a,b --cache=never --xattr --announce-submounts --inode-file-handles=never --sandbox=namespace"},
	} {
		share.Cache = c.cache
		if got := strings.Join(c.server.args(share, "/s", c.root), " "); got != c.want {
			t.Errorf("%+v: got\n%s", c.server, got)
		}
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).cert.Raw}))
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).leaf(x509.ExtKeyUsageServerAuth).Leaf.Raw}))
	write("company.crt", "the company's\n"+ca)
	write("again/company.pem", ca)
	write("server.crt", leaf)
	write("notes.txt", ca)
	write("damaged.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	if got := keepAuthorities(readCertificates([]string{dir, filepath.Join(dir, "nothing")})); got != ca {
		t.Errorf("got %q, want the one authority", got)
	}
}

func TestSlept(t *testing.T) {
	now := time.Now()
	if slept(now, now.Add(time.Second)) {
		t.Error("a second that both clocks counted is taken for sleep")
	}
}

func TestOptionsAreComplete(t *testing.T) {
	if _, err := (Options{}).withDefaults(); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("got %v", err)
	}
}

// TestStateIsPrintable: what a machine says may be shown on a terminal by whoever asks.
func TestStateIsPrintable(t *testing.T) {
	s := newState("test", 1, slog.New(slog.DiscardHandler))
	s.problem("engine", &hostagent.Problem{Code: "engine-silent", Text: "it says \x1b[2Jnothing\a"})
	s.port(hostagent.Port{Protocol: "tcp", Host: "0.0.0.0:80", Container: "web\x1b[31m"}, false)
	s.fail(hostagent.Problem{Code: "failed", Text: "\x1b]0;title\x1b\\gone"})
	got := s.snapshot()
	if len(got.Problems) != 2 || got.Problems[0].Text != "it says nothing" || got.Problems[1].Text != "gone" || got.Ports[0].Container != "web" {
		t.Errorf("status %+v", got)
	}
}

func TestPhasesGoForward(t *testing.T) {
	s := newState("test", 1, slog.New(slog.DiscardHandler))
	for _, c := range []struct{ enter, want hostagent.Phase }{
		{hostagent.Running, hostagent.Running}, {hostagent.Stopping, hostagent.Stopping}, {hostagent.Running, hostagent.Stopping},
		{hostagent.Stopped, hostagent.Stopped}, {hostagent.Stopping, hostagent.Stopped},
	} {
		if s.enter(c.enter, ""); s.snapshot().Phase != c.want {
			t.Errorf("enter %s: got %s, want %s", c.enter, s.snapshot().Phase, c.want)
		}
	}
	s = newState("test", 1, slog.New(slog.DiscardHandler))
	s.fail(hostagent.Problem{Text: "why"})
	if s.enter(hostagent.Stopping, ""); s.snapshot().Phase != hostagent.Failed {
		t.Error("an order hides that the machine failed")
	}
}
