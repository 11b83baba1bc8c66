// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

const goodSpec = `version: 1
driver: qemu
arch: amd64
accelerator: auto
cpus: 2
memory_mib: 2048
disk_mib: 65536
image: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
shares:
  - host: /home/me
labels:
  team: a
engine:
  options: [log-level=debug]
  registry_mirrors: [https://mirror.example]
options:
  tls-san: one.example,10.0.0.1
`

func TestParseSpec(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths are of other systems")
	}
	s, err := ParseSpec("machine.yaml", []byte(goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	if s.CPUs != 2 || s.Shares[0].Host != "/home/me" || strings.Join(s.tlsNames(), "|") != "one.example|10.0.0.1" {
		t.Errorf("%+v", s)
	}
	dir := Dir(t.TempDir())
	if err := writeSpec(dir, s); err != nil {
		t.Fatal(err)
	}
	again, err := readSpec(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := yaml.Marshal(s)
	b, errB := yaml.Marshal(again)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("written and read again:\n%s\nwas\n%s", b, a)
	}
}

func TestParseSpecRefuses(t *testing.T) {
	change := func(old, with string) string { return strings.Replace(goodSpec, old, with, 1) }
	for want, text := range map[string]string{
		`line 5: unknown field "cpu"`:               change("cpus: 2", "cpu: 2"),
		`line 10: unknown field "path"`:             change("- host: /home/me", "- path: /home/me"),
		"line 6: cannot unmarshal":                  change("memory_mib: 2048", "memory_mib: plenty"),
		"version is 9 and this dev reads up to 2":   change("version: 1", "version: 9\nnew: field"),
		"version is 0":                              change("version: 1\n", ""),
		`arch "riscv64" is not one of amd64, arm64`: change("amd64", "riscv64"),
		`accelerator "xen" is not one of auto, kvm`: change("accelerator: auto", "accelerator: xen"),
		"cpus is -1":                                change("cpus: 2", "cpus: -1"),
		"memory_mib is 100":                         change("2048", "100"),
		"disk_mib is 99999999999":                   change("65536", "99999999999"),
		`image "latest" is not a digest`:            change("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "latest"),
		`driver "../x" is not a name`:               change("driver: qemu", "driver: ../x"),
		`share "home" is not an absolute path`:      change("host: /home/me", "{host: home, guest: /home}"),
		`must be an absolute path below the root`:   change("host: /home/me", "{host: /home/me, guest: /}"),
		`has cache "some"`:                          change("  - host: /home/me", "  - {host: /home/me, type: virtiofs, cache: some}"),
		"which only type virtiofs has":              change("  - host: /home/me", "  - {host: /home/me, cache: always}"),
		"two shares would be at":                    change("  - host: /home/me", "  - host: /home/me\n  - {host: /other, guest: /home/me}"),
		`engine option "host" is the machine's own`: change("log-level=debug", "host=tcp://:1"),
		"it is empty":                               "",
		"did not find expected":                     "version: [1",
		"too large":                                 strings.Repeat("#", maxSpecBytes+1),
	} {
		if _, err := ParseSpec("machine.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	// All that is wrong is said at once.
	_, err := ParseSpec("machine.yaml", []byte(change("cpus: 2", "cpus: 0\nlabels: {a: b}")[:0]+strings.NewReplacer("cpus: 2", "cpus: 0", "2048", "1").Replace(goodSpec)))
	if err == nil || !strings.Contains(err.Error(), "cpus is 0") || !strings.Contains(err.Error(), "memory_mib is 1") {
		t.Errorf("two mistakes: %v", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(goodSpec))
	f.Add([]byte("version: 1\nshares: [{}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec("machine.yaml", data)
		if err != nil {
			return
		}
		out, err := yaml.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseSpec("machine.yaml", out); err != nil {
			t.Errorf("what was accepted is not when written again: %v\n%s", err, out)
		}
	})
}

func TestEngineConfig(t *testing.T) {
	e := EngineOptions{
		Options: []string{
			"--dns=1.1.1.1", "dns=8.8.8.8", "log-opt=max-size=10m", "log-opt=max-file=3", "experimental", "ipv6=true", "mtu=1400", "log-driver=local", "label=a=b",
		},
		Labels: []string{"c=d"}, RegistryMirrors: []string{"https://m"}, InsecureRegistries: []string{"r:5000"}, StorageDriver: "overlay2", Env: []string{"A=b=c", "B="},
	}
	config, err := e.Config()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"dns":["1.1.1.1","8.8.8.8"],"experimental":true,"insecure-registries":["r:5000"],"ipv6":true,"labels":["a=b","c=d"],"log-driver":"local",` +
		`"log-opts":{"max-file":"3","max-size":"10m"},"mtu":1400,"registry-mirrors":["https://m"],"storage-driver":"overlay2"}`
	if string(got) != want {
		t.Errorf("config is\n%s\nwant\n%s", got, want)
	}
	env, err := e.Environment()
	if err != nil || env["A"] != "b=c" || env["B"] != "" || len(env) != 2 {
		t.Errorf("environment is %v, %v", env, err)
	}
	for want, e := range map[string]EngineOptions{
		"has no name":          {Options: []string{"=x"}},
		"the machine's own":    {Options: []string{"data-root=/mnt"}},
		"wants a key and":      {Options: []string{"log-opt=max-size"}},
		"is not NAME=value":    {Env: []string{"PATH"}},
		`"=x" is not NAME=val`: {Env: []string{"=x"}},
	} {
		if _, err := e.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestDocumented compares docs/machine-dir.md with the names that a machine's folder has, and with what is there after a creation.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "machine-dir.md"))
	if err != nil {
		t.Fatal(err)
	}
	d := Dir("/m")
	files := []string{
		d.Spec(), d.ID(), d.Ports(), d.RunLock(), d.DataDisk(), d.Seed(), d.SSHKey(), d.SSHKey() + ".pub", d.HostKey(), d.HostKey() + ".pub", d.KnownHosts(),
		d.Console(), d.AgentLog(), d.file("agent.sock"), d.file("docker.sock"), d.Network(), d.Monitor(), d.TLS() + "/", d.Lock(),
		d.Journal(), d.Snapshots() + "/", d.file(newDisk),
	}
	for _, name := range []string{caName, caKeyName, clientName, clientKeyName, serverName, serverKeyName} {
		files = append(files, filepath.Join(d.TLS(), name))
	}
	for _, name := range files {
		base := "`" + filepath.Base(name) + "`"
		if strings.HasSuffix(name, "/") {
			base = "`" + filepath.Base(name) + "/`"
		}
		if name == d.Lock() {
			base = "`" + locksName + "/"
		}
		if !strings.Contains(string(text), base) {
			t.Errorf("docs/machine-dir.md does not name %s", base)
		}
	}
}

func TestFurnishMakesNothingElse(t *testing.T) {
	dir := Dir(t.TempDir())
	spec := Spec{Version: 1, Driver: "qemu", Arch: "amd64", CPUs: 1, MemoryMiB: 512, DiskMiB: 512, Image: strings.Repeat("0", 64)}
	if err := furnish(dir, "m", spec); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := "data.img host_ed25519 host_ed25519.pub id id_ed25519 id_ed25519.pub known_hosts machine.yaml tls"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("a new machine has %s; want %s", got, want)
	}
	info, err := os.Stat(dir.DataDisk())
	if err != nil || info.Size() != 512<<20 {
		t.Errorf("the disk has %d bytes, %v", info.Size(), err)
	}
	if err := GrowDisk(dir.DataDisk(), 100); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(dir.DataDisk()); err != nil || info.Size() != 512<<20 {
		t.Errorf("the disk shrank to %d bytes, %v", info.Size(), err)
	}
	if err := GrowDisk(dir.DataDisk()+".gone", 100); err == nil {
		t.Error("a disk that is gone was made anew")
	}
}

func TestLastLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, []byte("one\ntwo\r\n\n"+strings.Repeat("x", 70<<10)+"\nlast"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := lastLines(name, 0, 2)
	if len(got) != 2 || got[1] != "last" || len(got[0]) > 64<<10 {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
	if got := lastLines(name, 0, 4); len(got) > 2 {
		t.Errorf("beyond the last 64 KiB: %d lines", len(got))
	}
	if err := os.WriteFile(name, []byte("two\x1b[2J\r\n\x1b]0;title\a \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastLines(name, 0, 2); len(got) != 1 || got[0] != "two" {
		t.Errorf("of lines that command the terminal: %q", got)
	}
	if got := lastLines(name+".gone", 0, 2); got != nil {
		t.Errorf("of no file: %q", got)
	}
	for line, want := range map[string]string{
		"plain": "plain", `{"time":"now","level":"ERROR","msg":"failed","problem":"no space"}`: "failed: no space", "{broken": "{broken", `{"msg":"title \u001b]0;x\u0007"}`: "title ",
	} {
		if got := plainLine(line); got != want {
			t.Errorf("plainLine(%q) = %q", line, got)
		}
	}
}
