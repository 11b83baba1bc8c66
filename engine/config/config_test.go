// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const full = `
engine:
  registry-mirrors: [https://mirror.example.com]
  insecure-registries: [registry.local:5000, 10.0.0.0/8, "[::1]:5000", plain]
  ca-certificates: [corp.pem, /etc/ca.pem]
  proxy: {http: "http://proxy:3128", https: "socks5://proxy:1080", no: "localhost,.local"}
  address-pools:
    - {base: 10.200.0.0/16, size: 24}
    - {base: "fd00:1::/48", size: 64}
  data-root: data
  log: {max-size: 20m, max-file: 5}
  live-restore: false
  firewall: iptables
  socket-group: wheel
  dns: [1.1.1.1, "2606:4700::1"]
  debug: true
`

func TestParse(t *testing.T) {
	dir := t.TempDir()
	got, err := Parse(filepath.Join(dir, FileName), []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := Engine{
		RegistryMirrors:    []string{"https://mirror.example.com"},
		InsecureRegistries: []string{"registry.local:5000", "10.0.0.0/8", "[::1]:5000", "plain"},
		CACertificates:     []string{filepath.Join(dir, "corp.pem"), filepath.FromSlash("/etc/ca.pem")},
		Proxy:              Proxy{HTTP: "http://proxy:3128", HTTPS: "socks5://proxy:1080", No: "localhost,.local"},
		AddressPools: []AddressPool{
			{Base: netip.MustParsePrefix("10.200.0.0/16"), Size: 24}, {Base: netip.MustParsePrefix("fd00:1::/48"), Size: 64},
		},
		DataRoot: filepath.Join(dir, "data"), Log: Log{MaxSize: "20m", MaxFile: 5}, LiveRestore: &no, Firewall: "iptables",
		SocketGroup: "wheel", DNS: []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2606:4700::1")}, Debug: true,
	}
	if !reflect.DeepEqual(got.Engine, want) {
		t.Errorf("got  %+v\nwant %+v", got.Engine, want)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want, hint string }{
		{"unknown key", "engine:\n  registry-mirror: [x]\n", `f.yaml:2: unknown key "engine.registry-mirror"`, `did you mean "registry-mirrors"?`},
		{"unknown key with underscores", "engine:\n  data_root: /x\n", `f.yaml:2: unknown key "engine.data_root"`, `did you mean "data-root"?`},
		{"unknown key at the top", "\nmachine: {}\n", `f.yaml:2: unknown key "machine"`, "docs/configuration.md"},
		{"unknown key deep", "engine:\n  log:\n    max-file: 1\n    maxsize: 1m\n", `f.yaml:4: unknown key "engine.log.maxsize"`, `"max-size"`},
		{"unknown key in a list", "engine:\n  address-pools:\n    - base: 10.0.0.0/8\n      sise: 24\n", `f.yaml:4: unknown key "engine.address-pools.sise"`, `"size"`},
		{"unknown key behind an alias", "engine:\n  proxy: &p {htp: x}\n", `f.yaml:2: unknown key "engine.proxy.htp"`, `"http"`},
		{"no YAML", "engine: [", "f.yaml:1: did not find expected node content", ""},
		{"wrong kind", "engine:\n  debug: maybe\n", "f.yaml:2: cannot unmarshal", ""},
		{"key twice", "engine:\n  debug: true\n  debug: false\n", "f.yaml:3: mapping key \"debug\" already defined", ""},
		{"no mapping", "- engine\n", "f.yaml:1: cannot unmarshal", ""},
		{"mirror without scheme", "engine:\n  debug: true\n  registry-mirrors: [mirror]\n", `f.yaml:3: engine.registry-mirrors: "mirror" is not a URL`, ""},
		{"mirror with password", "engine:\n  registry-mirrors: ['https://u:p@m']\n", "f.yaml:2: engine.registry-mirrors", ""},
		{"registry with scheme", "engine:\n  insecure-registries: ['http://r']\n", "f.yaml:2: engine.insecure-registries", ""},
		{"registry with a port that is none", "engine:\n  insecure-registries: ['r:70000']\n", "f.yaml:2: engine.insecure-registries", ""},
		{"proxy without host", "engine:\n  proxy:\n    http: proxy\n", "f.yaml:3: engine.proxy.http: it is not a URL", ""},
		{"pool that is no network", "engine:\n  address-pools: [{base: 10.0.0.1/8, size: 24}]\n", `f.yaml:2: engine.address-pools: base "10.0.0.1/8"`, ""},
		{"pool without base", "engine:\n  address-pools: [{size: 24}]\n", "f.yaml:2: engine.address-pools: base", ""},
		{"pool smaller than its subnets", "engine:\n  address-pools: [{base: 10.0.0.0/16, size: 8}]\n", "size 8 of 10.0.0.0/16 is not between 16 and 30", ""},
		{"pools that overlap", "engine:\n  address-pools: [{base: 10.0.0.0/8, size: 16}, {base: 10.1.0.0/16, size: 24}]\n", "10.0.0.0/8 and 10.1.0.0/16 overlap", ""},
		{"firewall", "engine:\n  firewall: ufw\n", `f.yaml:2: engine.firewall: "ufw" is not auto, nftables or iptables`, ""},
		{"log size", "engine:\n  log:\n    max-size: big\n", `f.yaml:3: engine.log.max-size: "big" is not a size`, ""},
		{"log files", "engine:\n  log: {max-file: -1}\n", "f.yaml:2: engine.log.max-file", ""},
		{"no address", "engine:\n  dns: [localhost]\n", "f.yaml", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error = %v, want %q", err, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error is a %T", err)
			}
			if !strings.Contains(e.Hint(), tt.hint) {
				t.Errorf("hint = %q, want %q", e.Hint(), tt.hint)
			}
		})
	}
}

// TestPasswordsStayOut: a proxy's URL may hold a password, errors must not.
func TestPasswordsStayOut(t *testing.T) {
	_, err := Parse("f.yaml", []byte("engine:\n  proxy: {http: 'ftp://me:secret@proxy'}\n"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error = %v", err)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	got, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil || !reflect.DeepEqual(got, Config{}) {
		t.Errorf("Load = %+v, %v", got, err)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "engine:\n", "engine: {}\n"} {
		if got, err := Parse("f.yaml", []byte(text)); err != nil || !reflect.DeepEqual(got, Config{}) {
			t.Errorf("Parse(%q) = %+v, %v", text, got, err)
		}
	}
}

func TestDir(t *testing.T) {
	dir := t.TempDir()
	if got, err := Dir(func(string) string { return dir }); got != dir || err != nil {
		t.Errorf("Dir with DEV_HOME = %q, %v", got, err)
	}
	got, err := Dir(func(string) string { return "" })
	if err != nil || filepath.Base(got) != ".dev" || !filepath.IsAbs(got) {
		t.Errorf("Dir = %q, %v", got, err)
	}
}

func TestState(t *testing.T) {
	name := filepath.Join(t.TempDir(), "new", StateName)
	if s, err := LoadState(name); err != nil || s.DockerContext != Unanswered {
		t.Fatalf("LoadState without a file = %+v, %v", s, err)
	}
	if err := (State{DockerContext: No}).Save(name); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadState(name); err != nil || s.DockerContext != No {
		t.Errorf("LoadState = %+v, %v", s, err)
	}
	for _, text := range []string{"{", `{"schema":2}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadState(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("LoadState of %q = %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("a: &a\n  engine: *a\n"))
	f.Add([]byte("engine:\n  <<: {debug: true}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := Parse("f.yaml", data)
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) && !strings.Contains(err.Error(), "expand") {
			t.Errorf("error without a place: %v", err)
		}
	})
}
