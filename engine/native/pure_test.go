// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/engine/config"
	"github.com/seed71221737/dev/engine/native/supervise"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares with a file below testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", name, got)
	}
}

func noEnv(string) string { return "" }

var (
	defaultPaths = Paths{Root: "/var/lib/dev", Run: "/run/dev"}
	bin          = "/var/lib/dev/engine/29.0.0-abc/bin"
)

func fullSettings() Settings {
	return NewSettings(config.Engine{
		RegistryMirrors: []string{"https://mirror.example.com"}, InsecureRegistries: []string{"registry.local:5000"},
		Proxy: config.Proxy{HTTP: "http://proxy:3128", No: "localhost"}, DataRoot: `/srv/"dev" data`,
		Log: config.Log{MaxSize: "20m", MaxFile: 5}, LiveRestore: new(bool), Firewall: "iptables", SocketGroup: "wheel",
		DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1")}, Debug: true,
	}, func(name string) string {
		return map[string]string{"HTTPS_PROXY": "http://env:1", "http_proxy": "http://env:2"}[name]
	})
}

func TestDaemonJSON(t *testing.T) {
	pools := []config.AddressPool{{Base: netip.MustParsePrefix("172.17.0.0/16"), Size: 16}, {Base: netip.MustParsePrefix("fd00::/48"), Size: 64}}
	for name, tt := range map[string]struct {
		s Settings
		h host
	}{
		"daemon_default.json": {NewSettings(config.Engine{}, noEnv), host{FirewallNftables, pools, "docker"}},
		"daemon_full.json":    {fullSettings(), host{FirewallIptables, pools[:1], "wheel"}},
	} {
		got, err := daemonJSON(defaultPaths, bin, tt.s, tt.h)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, string(got)+"\n")
	}
}

func TestContainerdTOML(t *testing.T) {
	golden(t, "containerd_default.toml", string(containerdTOML(defaultPaths, NewSettings(config.Engine{}, noEnv))))
	golden(t, "containerd_full.toml", string(containerdTOML(defaultPaths, fullSettings())))
}

func TestUnitText(t *testing.T) {
	golden(t, "dev-engine.service", unitText([]string{"/usr/local/bin/dev", "engine", "serve"}, nil))
	golden(t, "dev-engine_quoted.service", unitText([]string{`/opt/my tools/50%/$dev"x"\y`, "engine", "serve"},
		[]string{"DEV_HOME=/home/me/a b", "DEV_ENGINE_BUNDLE=/x.tar.zst"}))
}

func TestNewSettings(t *testing.T) {
	s := fullSettings()
	if s.HTTPProxy != "http://proxy:3128" || s.HTTPSProxy != "http://env:1" || s.NoProxy != "localhost" {
		t.Errorf("proxies: %q %q %q", s.HTTPProxy, s.HTTPSProxy, s.NoProxy)
	}
	if s := NewSettings(config.Engine{}, noEnv); !s.LiveRestore || s.LogMaxSize != "10m" || s.LogMaxFile != 3 || s.Firewall != FirewallAuto {
		t.Errorf("defaults: %+v", s)
	}
}

func TestSettingsStored(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	s, err := loadSettings(p)
	if err != nil || !reflect.DeepEqual(s, NewSettings(config.Engine{}, noEnv)) {
		t.Errorf("settings without a file: %+v, %v", s, err)
	}
	want := fullSettings()
	want.AddressPools = []config.AddressPool{{Base: netip.MustParsePrefix("10.0.0.0/16"), Size: 24}}
	if err := want.save(p); err != nil {
		t.Fatal(err)
	}
	if got, err := loadSettings(p); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	changed, err := (&Service{Paths: p}).SettingsChanged(want)
	if changed || err != nil {
		t.Errorf("SettingsChanged of the same = %v, %v", changed, err)
	}
	want.Debug = false
	if changed, _ := (&Service{Paths: p}).SettingsChanged(want); !changed {
		t.Error("SettingsChanged of others = false")
	}
	if err := os.WriteFile(p.settings(), []byte(`{"schema":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSettings(p); err == nil || !strings.Contains(err.Error(), "schema 99 is not supported") {
		t.Errorf("settings of tomorrow: %v", err)
	}
}

func routes(list ...string) []route {
	var all []route
	for _, item := range list {
		prefix, device, _ := strings.Cut(item, " ")
		all = append(all, route{netip.MustParsePrefix(prefix), device})
	}
	return all
}

func TestAddressPools(t *testing.T) {
	const rest = " 172.18.0.0/15/20 172.20.0.0/14/20 172.24.0.0/13/20"
	for _, tt := range []struct {
		name   string
		routes []route
		want   string
	}{
		{"nothing taken", nil, "172.17.0.0/16/16" + rest + " 192.168.0.0/16/24"},
		{"routes elsewhere", routes("192.0.2.0/24 eth0", "10.0.0.0/8 tun0", "fd00::/8 eth0"), "172.17.0.0/16/16" + rest + " 192.168.0.0/16/24"},
		{"default routes, of a VPN too", routes("0.0.0.0/0 eth0", "0.0.0.0/1 tun0", "128.0.0.0/1 tun0"), "172.17.0.0/16/16" + rest + " 192.168.0.0/16/24"},
		{"home network", routes("192.168.1.0/24 wlan0"), "172.17.0.0/16/16" + rest + " 192.168.0.0/24/24 192.168.2.0/23/24 192.168.4.0/22/24" +
			" 192.168.8.0/21/24 192.168.16.0/20/24 192.168.32.0/19/24 192.168.64.0/18/24 192.168.128.0/17/24"},
		{"own bridges do not count", routes("172.17.0.0/16 docker0", "172.18.0.0/20 br-0123456789ab", "172.18.16.0/20 docker_gwbridge"), "172.17.0.0/16/16" + rest + " 192.168.0.0/16/24"},
		{"a bridge of somebody else's", routes("172.17.0.0/16 br-lan"), strings.TrimSpace(rest) + " 192.168.0.0/16/24"},
		{"one address of docker0's range", routes("172.17.5.9/32 tun0"), "172.17.0.0/22/22 172.17.4.0/24/24 172.17.6.0/23/23 172.17.8.0/21/21" +
			" 172.17.16.0/20/20 172.17.32.0/19/19 172.17.64.0/18/18 172.17.128.0/17/17" + rest + " 192.168.0.0/16/24"},
		{"all of 172.16.0.0/12", routes("172.16.0.0/12 tun0"), "192.168.0.0/16/24"},
		{"all of them", routes("172.16.0.0/12 tun0", "192.168.0.0/16 tun0"), "10.64.0.0/10/24 100.64.0.0/10/24 198.18.0.0/15/24"},
		{"and 10.0.0.0/8", routes("172.16.0.0/12 tun0", "192.168.0.0/16 tun0", "10.0.0.0/8 tun0"), "100.64.0.0/10/24 198.18.0.0/15/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pools, err := addressPools(tt.routes)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range pools {
				got = append(got, fmt.Sprintf("%s/%d", p.Base, p.Size))
				for _, r := range foreign(tt.routes) {
					if r.Overlaps(p.Base) {
						t.Errorf("pool %s overlaps the route to %s", p.Base, r)
					}
				}
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
	if _, err := addressPools(routes("172.16.0.0/12 a", "192.168.0.0/16 a", "10.0.0.0/8 a", "100.64.0.0/10 a", "198.18.0.0/15 a")); err == nil {
		t.Error("no error although every range is taken")
	}
}

func TestClashes(t *testing.T) {
	networks := map[string][]netip.Prefix{"shop_default": {netip.MustParsePrefix("172.18.0.0/20")}, "bridge": {netip.MustParsePrefix("172.17.0.0/16")}}
	got := clashes(networks, routes("172.17.0.0/16 docker0", "172.18.0.0/20 br-0123456789ab", "172.18.4.0/24 tun0", "0.0.0.0/1 tun0"))
	want := `network "shop_default" (172.18.0.0/20) overlaps the host's route to 172.18.4.0/24 through tun0: remove and make it again`
	if len(got) != 1 || got[0] != want {
		t.Errorf("clashes = %q", got)
	}
}

func TestChooseFirewall(t *testing.T) {
	no := errors.New("not found")
	drop := []baseChain{{"ip", "filter", "FORWARD", "forward", "drop"}}
	foreignDrop := []baseChain{{"inet", "filter", "forward", "forward", "drop"}}
	for _, tt := range []struct {
		name    string
		want    Firewall
		facts   firewallFacts
		chosen  Firewall
		warning bool
	}{
		{"both", FirewallAuto, firewallFacts{}, FirewallNftables, false},
		{"only nft", FirewallAuto, firewallFacts{iptables: no}, FirewallNftables, false},
		{"only iptables", FirewallAuto, firewallFacts{nft: no}, FirewallIptables, false},
		{"neither", FirewallAuto, firewallFacts{nft: no, iptables: no}, "", false},
		{"iptables drop forwarded packets", FirewallAuto, firewallFacts{chains: drop}, FirewallIptables, false},
		{"legacy iptables drop forwarded packets", FirewallAuto, firewallFacts{legacyDrop: true}, FirewallIptables, false},
		{"they drop, but iptables is not there", FirewallAuto, firewallFacts{chains: drop, iptables: no}, FirewallNftables, true},
		{"a table of the host's drops", FirewallAuto, firewallFacts{chains: foreignDrop}, FirewallNftables, true},
		{"asked for nftables", FirewallNftables, firewallFacts{chains: drop}, FirewallNftables, true},
		{"asked for iptables", FirewallIptables, firewallFacts{}, FirewallIptables, false},
		{"asked for what is missing", FirewallNftables, firewallFacts{nft: no}, "", false},
		{"asked for what is missing 2", FirewallIptables, firewallFacts{iptables: no}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := chooseFirewall(tt.want, tt.facts)
			if got != tt.chosen || (err != nil) != (tt.chosen == "") {
				t.Fatalf("chose %q, %v; want %q", got, err, tt.chosen)
			}
			if err != nil {
				var missing *MissingError
				if !errors.As(err, &missing) || missing.Hint() == "" || missing.ExitCode() != ExitImpossible || !errors.Is(err, no) {
					t.Errorf("error %#v", err)
				}
				return
			}
			if w := tt.facts.warnings(got); (len(w) > 0) != tt.warning {
				t.Errorf("warnings %q, want some: %v", w, tt.warning)
			}
		})
	}
}

func TestParseChains(t *testing.T) {
	got, err := parseChains([]byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 2}}]}`))
	if err != nil || !reflect.DeepEqual(got, []baseChain{{"ip", "filter", "FORWARD", "forward", "drop"}}) {
		t.Errorf("chains = %+v, %v", got, err)
	}
	if _, err := parseChains([]byte("nft: no")); err == nil {
		t.Error("no error for what is no JSON")
	}
}

func TestPaths(t *testing.T) {
	if p := DefaultPaths(noEnv); p != defaultPaths || p.Host() != "unix:///run/dev/docker.sock" {
		t.Errorf("default paths %+v", p)
	}
	p := DefaultPaths(func(name string) string { return map[string]string{"DEV_ENGINE_ROOT": "/x"}[name] })
	if p.Host() != "unix:///x/run/docker.sock" || p.validate() != nil {
		t.Errorf("moved paths %+v, %v", p, p.validate())
	}
	for _, p := range []Paths{{Root: "x", Run: "/run"}, {Root: "/x", Run: "/" + strings.Repeat("y", 100)}} {
		if p.validate() == nil {
			t.Errorf("paths %+v are accepted", p)
		}
	}
}

func TestPhaseOf(t *testing.T) {
	up, down := supervise.State{Phase: supervise.Running}, supervise.State{Phase: supervise.Waiting}
	for _, tt := range []struct {
		r    Report
		want Phase
	}{
		{Report{Stage: StageUnpack}, PhaseStarting},
		{Report{Stage: StageStart, Components: []supervise.State{up, up}}, PhaseStarting},
		{Report{Stage: StageReady, Components: []supervise.State{up, up}}, PhaseRunning},
		{Report{Stage: StageReady, Components: []supervise.State{up, down}}, PhaseDegraded},
		{Report{Stage: StageStopping, Components: []supervise.State{up, down}}, PhaseStopping},
	} {
		if got := phaseOf(tt.r); got != tt.want {
			t.Errorf("phase of %+v = %q, want %q", tt.r, got, tt.want)
		}
	}
}

func TestFindSource(t *testing.T) {
	root := t.TempDir()
	exe := filepath.Join(root, "bin", "dev")
	put := func(name string) string {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	put(exe)
	if len(embedded) > 0 {
		t.Skip("this build carries a bundle")
	}
	var none *NoBundleError
	if _, err := FindSource(noEnv, exe); !errors.As(err, &none) || len(none.Tried) != 3 || none.ExitCode() != ExitImpossible {
		t.Errorf("without any: %v", err)
	}
	for _, name := range []string{"share/dev", "dist", "bin"} { // the last found is preferred
		want := put(filepath.Join(root, name, bundleName()))
		got, err := FindSource(noEnv, exe)
		if err != nil || filepath.Clean(got.Name) != want {
			t.Errorf("found %q, %v; want %q", got.Name, err, want)
		}
	}
	link := filepath.Join(t.TempDir(), "dev")
	if err := os.Symlink(exe, link); err == nil {
		if got, err := FindSource(noEnv, link); err != nil || filepath.Dir(got.Name) != filepath.Dir(exe) {
			t.Errorf("through a link: %q, %v", got.Name, err)
		}
	}
	chosen := put(filepath.Join(root, "chosen"))
	env := func(string) string { return chosen }
	if got, err := FindSource(env, exe); err != nil || got.Name != chosen {
		t.Errorf("DEV_ENGINE_BUNDLE: %q, %v", got.Name, err)
	}
	env = func(string) string { return filepath.Join(root, "gone") }
	if _, err := FindSource(env, exe); err == nil {
		t.Error("a DEV_ENGINE_BUNDLE that is not there is no error")
	}
}

// TestFailure: why a start failed crosses from the supervisor to the command.
func TestFailure(t *testing.T) {
	p := Paths{Run: t.TempDir()}
	cause := &supervise.ExitedError{Name: "dockerd", Exit: supervise.Exit{At: time.Now(), Reason: "r", Log: []string{"last line"},
		Err: &MissingError{What: "nftables", Fix: "install it"}}}
	if err := leaveFailure(p, StageStart, fmt.Errorf("wrapped: %w", cause)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(p.failure())
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseFailure(data)
	if err != nil {
		t.Fatal(err)
	}
	if f.Stage != StageStart || f.Hint() != "install it" || f.ExitCode() != ExitImpossible || !slices.Equal(f.Lines(), []string{"last line"}) {
		t.Errorf("failure %+v", f)
	}
	if !strings.Contains(f.Error(), "stage start") || !strings.Contains(f.Error(), "wrapped: dockerd ended before it was ready: r") {
		t.Errorf("message %q", f.Error())
	}
}
