// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/system"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/internal/finding"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// healthy is a host without any fault.
func healthy(t *testing.T) Host {
	t.Helper()
	return Host{
		Getenv: func(string) string { return "" }, Dir: t.TempDir(), DockerDir: t.TempDir(),
		LookPath:   func(string) (string, error) { return "", errors.New("not there") },
		LookupHost: func(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil },
		FreeSpace:  func(string) (uint64, uint64, error) { return 100 << 30, 200 << 30, nil },
		PortFree:   func(string, uint16) bool { return true },
		ReadFile:   func(string) ([]byte, error) { return []byte("1000000\n"), nil },
		Connect:    func(string) error { return errors.New("refused") },
		Now:        func() time.Time { return now },
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func findings(reports []Report) (all []Finding) {
	for _, r := range reports {
		all = append(all, r.Findings...)
	}
	return all
}

// TestHostChecks makes each fault and looks for its one finding; repairing it leaves none.
func TestHostChecks(t *testing.T) {
	env := func(vars map[string]string) func(string) string {
		return func(name string) string { return vars[name] }
	}
	for name, c := range map[string]struct {
		fault func(*Host)
		check string
		what  string
	}{
		"none":    {func(*Host) {}, "", ""},
		"disk":    {func(h *Host) { h.FreeSpace = func(string) (uint64, uint64, error) { return 1 << 20, 1 << 40, nil } }, "disk", "has 1.049MB left"},
		"no disk": {func(h *Host) { h.FreeSpace = func(string) (uint64, uint64, error) { return 0, 0, fs.ErrNotExist } }, "", ""},
		"dns":     {func(h *Host) { h.LookupHost = lookup("localhost") }, "dns", "registry-1.docker.io cannot be resolved"},
		"no dns":  {func(h *Host) { h.LookupHost = lookup() }, "dns", "localhost has no address"},
		"store": {func(h *Host) {
			write(t, h.DockerDir+"/config.json", `{"credsStore": "desktop", "other": {"kept": 1}}`, 0o600)
		}, "credentials", "docker-credential-desktop is not installed"},
		"helper":   {func(h *Host) { write(t, h.DockerDir+"/config.json", `{"credHelpers": {"example.com": "lost"}}`, 0o600) }, "credentials", "docker-credential-lost"},
		"broken":   {func(h *Host) { write(t, h.DockerDir+"/config.json", `{`, 0o600) }, "credentials", "cannot be read"},
		"open":     {func(h *Host) { write(t, h.DockerDir+"/config.json", `{"auths": {"example.com": {}}}`, 0o644) }, "credentials", "may be read by others"},
		"settings": {func(h *Host) { write(t, h.Dir+"/config.yaml", "engin: {}", 0o600) }, "settings", "the settings cannot be read"},
		"ca":       {func(h *Host) { write(t, h.Dir+"/config.yaml", "engine: {ca-certificates: [none.pem]}", 0o600) }, "settings", "no certificate can be read"},
		"state":    {func(h *Host) { write(t, h.Dir+"/environments.json", `{"schema`, 0o600) }, "settings", "environments.json is damaged"},
		"proxy":    {func(h *Host) { h.Getenv = env(map[string]string{"HTTP_PROXY": "http://", "NO_PROXY": "localhost"}) }, "proxy", "HTTP_PROXY is no address"},
		"no_proxy": {func(h *Host) { h.Getenv = env(map[string]string{"https_proxy": "proxy.example.com:3128"}) }, "proxy", "localhost go through the proxy"},
		"good proxy": {func(h *Host) {
			h.Getenv = env(map[string]string{"HTTPS_PROXY": "http://u:p@proxy:1", "NO_PROXY": "localhost"})
		}, "", ""},
		"cert": {func(h *Host) { h.Getenv = env(map[string]string{"SSL_CERT_FILE": "/nowhere/at/all"}) }, "proxy", "SSL_CERT_FILE leads nowhere"},
		"watches": {func(h *Host) {
			h.ReadFile = func(name string) ([]byte, error) {
				return []byte(map[bool]string{true: "8192", false: "1024"}[strings.HasSuffix(name, "watches")]), nil
			}
		}, "watching", "fs.inotify.max_user_watches is 8192"},
		"tmp":      {func(h *Host) { write(t, h.Dir+"/deep/.tmp-1/file", "", 0o600); age(t, h.Dir+"/deep/.tmp-1") }, "leftovers", ".tmp-1 is left over"},
		"busy tmp": {func(h *Host) { write(t, h.Dir+"/.tmp-1", "", 0o600); touch(t, h.Dir+"/.tmp-1", now) }, "", ""},
		"socket":   {func(h *Host) { listen(t, h.Dir+"/s.sock") }, "leftovers", "nobody listens on"},
		"live":     {func(h *Host) { listen(t, h.Dir+"/s.sock"); h.Connect = func(string) error { return nil } }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := healthy(t)
			c.fault(&h)
			checks := h.HostChecks([]string{"/"})
			found := findings(finding.Run(t.Context(), checks))
			if c.check == "" {
				if len(found) != 0 {
					t.Errorf("got %+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Check != c.check || !strings.Contains(found[0].What, c.what) || found[0].Cause == "" || found[0].Fix == "" {
				t.Fatalf("got %+v", found)
			}
			if f := found[0]; f.Repair != nil {
				if err := f.Repair(t.Context()); err != nil || f.RepairText == "" {
					t.Fatalf("repair %q: %v", f.RepairText, err)
				}
				if left := findings(finding.Run(t.Context(), checks)); len(left) != 0 {
					t.Errorf("after the repair: %+v", left)
				}
			}
		})
	}
}

// lookup resolves only the names given.
func lookup(names ...string) func(context.Context, string) ([]string, error) {
	return func(_ context.Context, host string) ([]string, error) {
		for _, name := range names {
			if host == name {
				return []string{"127.0.0.1"}, nil
			}
		}
		return nil, &net.DNSError{Err: "no such host", Name: host}
	}
}

func touch(t *testing.T, name string, when time.Time) {
	t.Helper()
	if err := os.Chtimes(name, when, when); err != nil {
		t.Fatal(err)
	}
}

func age(t *testing.T, name string) { touch(t, name, now.Add(-48*time.Hour)) }

// listen leaves a socket that nobody listens on.
func listen(t *testing.T, name string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Skipf("no unix sockets: %v", err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	age(t, name)
}

func TestDropHelperKeepsTheRest(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.json")
	const text = `{"auths": {"a": {}}, "credHelpers": {"x": "lost", "y": "kept"}, "psFormat": "table"}`
	write(t, name, text, 0o600)
	if err := dropHelper(name, "credHelpers", "x"); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(name)
	for _, want := range []string{`"psFormat": "table"`, `"y": "kept"`, `"a": {}`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	if backup, err := os.ReadFile(name + ".bak"); err != nil || string(backup) != text || strings.Contains(string(got), "lost") {
		t.Errorf("got %s, backup %s, %v", got, backup, err)
	}
}

// fakeEngine answers what it is told to.
type fakeEngine struct {
	info    system.Info
	err     error
	left    []engine.Leftover
	removed []string
}

func (e *fakeEngine) Info(context.Context) (system.Info, error) { return e.info, e.err }
func (e *fakeEngine) Leftovers(context.Context) ([]engine.Leftover, error) {
	return e.left, nil
}
func (e *fakeEngine) RemoveLeftover(_ context.Context, l engine.Leftover) error {
	e.removed = append(e.removed, l.Name)
	return nil
}

func TestEngineChecks(t *testing.T) {
	at := func(d time.Duration) system.Info { return system.Info{SystemTime: now.Add(d).Format(time.RFC3339Nano)} }
	for name, c := range map[string]struct {
		e    *fakeEngine
		open error
		want string
	}{
		"well":      {&fakeEngine{info: at(time.Second)}, nil, "[]"},
		"none":      {nil, errors.New("nobody there"), "[the engine does not answer]"},
		"silent":    {&fakeEngine{err: errors.New("hangs")}, nil, "[the engine does not answer]"},
		"fast":      {&fakeEngine{info: at(time.Hour)}, nil, "[the engine's clock is 1h0m0s off]"},
		"slow":      {&fakeEngine{info: at(-time.Minute)}, nil, "[the engine's clock is 1m0s off]"},
		"warns":     {&fakeEngine{info: system.Info{Warnings: []string{"WARNING: No swap"}}}, nil, "[No swap]"},
		"leftovers": {&fakeEngine{info: at(0), left: []engine.Leftover{{Kind: "network", Name: "old_default", Why: "x"}}}, nil, "[network old_default is left over]"},
	} {
		t.Run(name, func(t *testing.T) {
			h := healthy(t)
			found := findings(finding.Run(t.Context(), h.EngineChecks(func(context.Context) (Engine, error) { return c.e, c.open })))
			what := []string{}
			for _, f := range found {
				what = append(what, f.What)
				if f.Repair != nil && (f.Repair(t.Context()) != nil || len(c.e.removed) != 1) {
					t.Errorf("repair: removed %v", c.e.removed)
				}
			}
			if got := fmt.Sprint(what); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestPortCheck(t *testing.T) {
	h := healthy(t)
	h.PortFree = func(protocol string, port uint16) bool { return protocol == "udp" || port == 3 }
	needs := compose.Needs{Ports: []compose.PortNeed{
		{Key: "a/80/tcp", Protocol: "tcp", Count: 1}, {Key: "b/80/tcp", Protocol: "tcp", Count: 1}, {Key: "c/80/tcp", Protocol: "tcp", Count: 1}, {Key: "d/80/udp", Protocol: "udp", Count: 1},
	}}
	ports := map[string]uint16{"a/80/tcp": 1, "b/80/tcp": 2, "c/80/tcp": 3, "d/80/udp": 1}
	found := h.PortCheck(needs, ports, []compose.Container{{Ports: []compose.Port{{HostPort: 1}}}}).Run(t.Context())
	if len(found) != 1 || !strings.Contains(found[0].What, "port 2/tcp, which service b publishes") {
		t.Errorf("got %+v", found)
	}
}

func TestFreeSpace(t *testing.T) {
	if free, size, err := FreeSpace(t.TempDir()); err != nil || size == 0 || free > size {
		t.Errorf("got %d of %d, %v", free, size, err)
	}
	if _, _, err := FreeSpace(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that is not there has room")
	}
}
