// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package serve

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent/daemon"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/qemu"
	"github.com/seed71221737/dev/vmimage"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestMain(m *testing.M) {
	drivertest.StandIn()
	os.Exit(m.Run())
}

// newMachine makes a machine with a stand-in for QEMU.
func newMachine(t *testing.T, edit func(*machine.Spec)) (*machine.Store, *machine.Machine) {
	t.Helper()
	home, err := os.MkdirTemp("", "srv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(drivertest.StandInVariable, drivertest.StandInGood)
	log := slog.New(slog.DiscardHandler)
	images := &vmimage.Store{Dir: home + "/images"}
	s := &machine.Store{
		Dir: home + "/machines", Images: images, Agent: []string{program, "hostagent", home}, Logger: log,
		Drivers: map[string]machine.Driver{"qemu": &qemu.Driver{Images: images, State: home, Logger: log, Program: program}},
	}
	spec := machine.Spec{Driver: "qemu", Arch: "amd64", Accelerator: "tcg", CPUs: 1, MemoryMiB: 512, DiskMiB: 512, Image: drivertest.Image(t, images, "amd64", "test")}
	if edit != nil {
		edit(&spec)
	}
	m, err := s.Create(t.Context(), "my.machine", spec, machine.CreateOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

// TestSeed reads back what the guest is told: the spec wins over the agent, and keys and identity are the machine's.
func TestSeed(t *testing.T) {
	s, m := newMachine(t, func(spec *machine.Spec) {
		spec.Engine.Options = []string{"log-driver=local"}
		spec.Engine.Env = []string{"HTTP_PROXY=http://of.the.spec"}
		spec.Shares = []machine.Share{{Host: "/srv/data", ReadOnly: true}}
	})
	o, err := options(s, m, []string{"A=b"})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Shares) != 1 || o.Shares[0].Tag != "share0" || o.Shares[0].Host != "/srv/data" || !o.Shares[0].ReadOnly {
		t.Errorf("shares: %+v", o.Shares)
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	err = o.WriteSeed(daemon.SeedParts{
		Time: at, Network: proto.Network{Address: netip.MustParsePrefix("192.168.127.2/24")},
		Proxy:  map[string]string{"HTTP_PROXY": "http://of.the.host", "NO_PROXY": "x"},
		Engine: map[string]json.RawMessage{"log-driver": json.RawMessage(`"json-file"`), "dns": json.RawMessage(`["192.168.127.1"]`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(m.Dir.Seed())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the seed has keys in it, and its mode is %v, %v", info.Mode(), err)
	}
	seed, err := proto.DecodeSeed(f)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := m.Identity()
	if err != nil {
		t.Fatal(err)
	}
	if seed.Hostname != "my-machine" || seed.MachineID != identity.ID || !seed.DataDisk || !seed.Time.Equal(at) || len(seed.Entropy) < 32 || o.MAC != identity.MAC {
		t.Errorf("seed: %+v", seed)
	}
	if seed.Proxy["HTTP_PROXY"] != "http://of.the.spec" || seed.Proxy["NO_PROXY"] != "x" {
		t.Errorf("proxy: %v", seed.Proxy)
	}
	if string(seed.Engine["log-driver"]) != `"local"` || string(seed.Engine["dns"]) != `["192.168.127.1"]` {
		t.Errorf("engine: %s", seed.Engine)
	}
	host, err := ssh.ParsePrivateKey([]byte(seed.HostKey))
	if err != nil || string(host.PublicKey().Marshal()) != string(o.HostKey.Marshal()) {
		t.Errorf("the guest answers with another key than the agent expects: %v", err)
	}
	login := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(o.Key.PublicKey())))
	if len(seed.AuthorizedKeys) != 1 || seed.AuthorizedKeys[0] != login {
		t.Errorf("authorized keys: %q", seed.AuthorizedKeys)
	}
}

// TestPortsStay: ports are chosen once, and a file that says nothing useful is replaced.
func TestPortsStay(t *testing.T) {
	_, m := newMachine(t, nil)
	first, err := wishedPorts(m.Dir)
	if err != nil || !first.Valid() {
		t.Fatal(first, err)
	}
	if again, err := wishedPorts(m.Dir); err != nil || again != first {
		t.Errorf("%+v, then %+v, %v", first, again, err)
	}
	for _, text := range []string{"", "{", `{"ssh":0,"tcp":1}`, `{"ssh":70000,"tcp":1}`, `{"ssh":5,"tcp":5}`} {
		if err := os.WriteFile(m.Dir.Ports(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := wishedPorts(m.Dir); err != nil || !p.Valid() {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

// TestBrokenMachine: a machine that cannot be served is refused before anything starts.
func TestBrokenMachine(t *testing.T) {
	s, m := newMachine(t, nil)
	if err := os.Remove(m.Dir.DataDisk()); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), s, m.Name, nil); err == nil || !strings.Contains(err.Error(), "data.img") {
		t.Errorf("serve without a data disk: %v", err)
	}
	if _, err := os.Stat(m.Dir.DataDisk()); err == nil {
		t.Error("an empty data disk was made in place of the lost one")
	}
}
