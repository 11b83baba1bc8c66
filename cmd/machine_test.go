// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/pflag"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

func TestMebibytes(t *testing.T) {
	for text, want := range map[string]mebibytes{"1024": 1024, "4g": 4096, "512m": 512, "1.5G": 1536, "2GiB": 2048} {
		var s mebibytes
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v; want %d", text, s, err, want)
		}
	}
	for _, wrong := range []string{"", "much", "-1", "0", "1k"} {
		var s mebibytes
		if err := s.Set(wrong); err == nil {
			t.Errorf("%q is taken as %d", wrong, s)
		}
	}
}

func TestParseShare(t *testing.T) {
	for _, c := range []struct {
		text, goos string
		want       machine.Share
	}{
		{"/src", "linux", machine.Share{Host: "/src"}},
		{"~/src:ro", "linux", machine.Share{Host: "~/src", ReadOnly: true}},
		{"/src:/data", "linux", machine.Share{Host: "/src", Guest: "/data"}},
		{"/src:/data:ro", "linux", machine.Share{Host: "/src", Guest: "/data", ReadOnly: true}},
		{"/src:rw", "linux", machine.Share{Host: "/src"}},
		{"/src,type=virtiofs", "linux", machine.Share{Host: "/src", Type: "virtiofs"}},
		{"/src:/data:ro,type=fuse", "linux", machine.Share{Host: "/src", Guest: "/data", ReadOnly: true, Type: "fuse"}},
		{"/src,type=virtiofs,cache=always", "linux", machine.Share{Host: "/src", Type: "virtiofs", Cache: "always"}},
		{"/src,cache=never,type=virtiofs", "linux", machine.Share{Host: "/src", Type: "virtiofs", Cache: "never"}},
		{"/src,type=x/y", "linux", machine.Share{Host: "/src,type=x/y"}},
		{`C:\Users\me`, "windows", machine.Share{Host: `C:\Users\me`}},
		{`D:\x:/data:ro`, "windows", machine.Share{Host: `D:\x`, Guest: "/data", ReadOnly: true}},
	} {
		if got, err := parseShare(c.text, c.goos); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.text, got, err, c.want)
		}
	}
	for _, wrong := range []string{"", ":/data", "/src:data", ":ro"} {
		if got, err := parseShare(wrong, "linux"); err == nil {
			t.Errorf("%q is taken as %+v", wrong, got)
		}
	}
}

func TestEditShares(t *testing.T) {
	spec := machine.Spec{Shares: []machine.Share{{Host: "/home/me"}, {Host: "/data", ReadOnly: true}}}
	if err := editShares(&spec, []machine.Share{{Host: "/data"}, {Host: "/src"}}, []string{"/home/me"}); err != nil {
		t.Fatal(err)
	}
	if want := []machine.Share{{Host: "/data"}, {Host: "/src"}}; !slices.Equal(spec.Shares, want) {
		t.Errorf("shares are %+v, want %+v", spec.Shares, want)
	}
	err := editShares(&spec, nil, []string{"/gone"})
	if err == nil || !strings.Contains(hintOf(err), "/data, /src") {
		t.Errorf("err = %v, hint %q", err, hintOf(err))
	}
}

func TestGuestFolder(t *testing.T) {
	shares := []machine.Share{{Host: "/home/me"}, {Host: "/home/me/big", Guest: "/big"}, {Host: "/data", Guest: "/srv/data"}}
	for folder, want := range map[string]string{
		"/home/me": "/home/me", "/home/me/src/app": "/home/me/src/app", "/home/me/big/x": "/big/x", "/home/me/bigger": "/home/me/bigger",
		"/data/x": "/srv/data/x", "/etc": "", "/home": "", "/home/meme": "",
	} {
		got, ok := guestFolder(shares, folder, "linux")
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", folder, got, ok, want)
		}
	}
	windows := []machine.Share{{Host: `C:\Users\me`}}
	if got, ok := guestFolder(windows, `c:\Users\me\app`, "windows"); got != "/c/Users/me/app" || !ok {
		t.Errorf("on Windows: %q, %v", got, ok)
	}
}

func bind(source string) types.ServiceVolumeConfig {
	return types.ServiceVolumeConfig{Type: types.VolumeTypeBind, Source: source, Target: "/x"}
}

func TestUnsharedBinds(t *testing.T) {
	volumes := func(v ...types.ServiceVolumeConfig) types.ServiceConfig {
		return types.ServiceConfig{ContainerSpec: types.ContainerSpec{Volumes: v}}
	}
	named := types.ServiceVolumeConfig{Type: types.VolumeTypeVolume, Source: "data"}
	p := &types.Project{Services: types.Services{
		"web": volumes(bind("/srv/www"), bind("/home/me/app"), bind("/var/run/docker.sock"), named),
		"db":  volumes(bind("/srv/www"), bind("/opt/x")),
	}}
	got := unsharedBinds(p, []machine.Share{{Host: "/home/me"}}, "linux")
	if want := []string{"/opt/x", "/srv/www"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := unsharedBinds(p, nil, "linux"); len(got) != 3 {
		t.Errorf("without shares: %q", got)
	}
}

func TestGuestBinds(t *testing.T) {
	web := types.ServiceConfig{ContainerSpec: types.ContainerSpec{Volumes: []types.ServiceVolumeConfig{bind(`C:\Users\me\app`), bind("/var/run/docker.sock")}}}
	p := &types.Project{Services: types.Services{"web": web}}
	if err := guestBinds(p, "windows"); err != nil {
		t.Fatal(err)
	}
	v := p.Services["web"].Volumes
	if v[0].Source != "/c/Users/me/app" || v[1].Source != "/var/run/docker.sock" {
		t.Errorf("sources are %q and %q", v[0].Source, v[1].Source)
	}
	p.Services["web"].Volumes[0].Source = `\\server\share`
	if err := guestBinds(p, "windows"); err == nil || !strings.Contains(err.Error(), `service "web"`) {
		t.Errorf("a network path: %v", err)
	}
}

func TestShellOptions(t *testing.T) {
	for line, want := range map[string]string{
		"ls -l": "ls -l", "-t top": "top", "-T -- -x": "-x", "-tt": "", "": "",
	} {
		var o shellOptions
		got, err := o.parse(strings.Fields(line))
		if strings.Join(got, " ") != want || err != nil || o.tty != strings.HasPrefix(line, "-t") || o.noTTY != strings.HasPrefix(line, "-T") {
			t.Errorf("%s: %q, %+v, %v", line, got, o, err)
		}
	}
	var o shellOptions
	if _, err := o.parse([]string{"-L", "80:x:80"}); err == nil || !strings.Contains(hintOf(err), "ssh-config") {
		t.Errorf("err = %v", err)
	}
}

func TestShellLine(t *testing.T) {
	for _, c := range []struct {
		dir     string
		command []string
		want    string
	}{
		{"", []string{"ls", "a b"}, "ls 'a b'"},
		{"/my files", []string{"ls"}, "cd '/my files' && ls"},
		{"/src", nil, `cd /src && exec "${SHELL:-/bin/sh}" -l`},
	} {
		if got := shellLine(c.dir, c.command); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestSSHConfig(t *testing.T) {
	target := machine.SSHTarget{Address: "127.0.0.1:2222", User: "root", KeyFile: `C:\Users\a b\id`, KnownHosts: "/m/known_hosts", HostKeyAlias: "dev-machine-box"}
	got, err := sshConfig(target)
	if err != nil {
		t.Fatal(err)
	}
	want := `Host dev-machine-box
  HostName 127.0.0.1
  Port 2222
  User root
  IdentityFile "C:/Users/a b/id"
  IdentitiesOnly yes
  HostKeyAlias dev-machine-box
  UserKnownHostsFile "/m/known_hosts"
  StrictHostKeyChecking yes
  BatchMode yes`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if _, err := sshConfig(machine.SSHTarget{Address: "nowhere"}); err == nil {
		t.Error("an address without a port is no error")
	}
	args := strings.Join(sshfsArgs(target, "/data", "/mnt"), " ")
	for _, part := range []string{"root@127.0.0.1:/data /mnt", "-p 2222", "HostKeyAlias=dev-machine-box", "StrictHostKeyChecking=yes"} {
		if !strings.Contains(args, part) {
			t.Errorf("sshfs %s lacks %q", args, part)
		}
	}
}

func TestRefuseForeign(t *testing.T) {
	parse := func(args ...string) *pflag.FlagSet {
		f := pflag.NewFlagSet("create", pflag.ContinueOnError)
		addForeignFlags(f)
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		return f
	}
	ours := []string{"qemu"}
	if err := refuseForeign(parse(), "qemu", ours); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		`driver "generic" is not there yet`:                     refuseForeign(parse(), "generic", ours),
		`driver "nonsense" is none that dev knows`:              refuseForeign(parse(), "nonsense", ours),
		`--virtualbox-no-share belongs to driver "virtualbox"`:  refuseForeign(parse("--virtualbox-no-share"), "qemu", ours),
		"--hyperv-memory belongs":                               refuseForeign(parse("--hyperv-memory=1", "--url", "x"), "qemu", ours),
		`--url belongs to driver "none"`:                        refuseForeign(parse("--hyperv-memory=1", "--url", "x"), "qemu", ours),
		`--vmwarefusion-cpu-count belongs to driver "vmwarefus`: refuseForeign(parse("--vmwarefusion-cpu-count", "2"), "qemu", ours),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want %q", err, want)
		}
	}
}

func TestPreCreateExitCode(t *testing.T) {
	a := &app{err: io.Discard}
	failed := preCreate(fmt.Errorf("create: %w", &machine.CheckError{Driver: "qemu", Err: errors.New("no QEMU")}))
	if code := a.exitCode(t.Context(), failed); code != exitPreCreate {
		t.Errorf("exit code %d, want %d", code, exitPreCreate)
	}
	if code := a.exitCode(t.Context(), preCreate(errors.New("other"))); code != exitError {
		t.Errorf("another error's exit code is %d", code)
	}
}

func TestJoinedErrorsKeepTheirHint(t *testing.T) {
	one := withHint(errors.New("a"), "do b")
	if err := joinMachineErrors([]error{nil, one}); hintOf(err) != "do b" || err.Error() != "a" {
		t.Errorf("%v, hint %q", err, hintOf(err))
	}
	if err := joinMachineErrors([]error{one, errors.New("c")}); err.Error() != "a\nc" {
		t.Errorf("%q", err)
	}
	if err := joinMachineErrors([]error{nil, nil}); err != nil {
		t.Error(err)
	}
}

func TestEventText(t *testing.T) {
	for want, e := range map[string]hostagent.Event{
		"starting link":                   {Kind: "stage", Phase: hostagent.Starting, Stage: hostagent.StageLink},
		"127.0.0.1:80/tcp -> :80 web":     {Kind: "port", Port: &hostagent.Port{Protocol: "tcp", Host: "127.0.0.1:80", Guest: ":80", Container: "web"}},
		"port 80 is taken stop the other": {Kind: "problem", Problem: &hostagent.Problem{Text: "port 80 is taken", Hint: "stop the other"}},
	} {
		if got := eventText(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestLogLine(t *testing.T) {
	line := `{"time":"2026-01-02T03:04:05.6Z","level":"INFO","msg":"VM runs","pid":12,"path":"/a b","stage":"link"}`
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC).Local().Format("2006-01-02 15:04:05.000")
	if got, want := logLine(line), at+` INFO VM runs path="/a b" pid=12 stage=link`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := logLine("panic: oh"); got != "panic: oh" {
		t.Errorf("a line that is no JSON becomes %q", got)
	}
}

// TestFollowLog: lines that come, also after the file was begun anew, are shown once and whole.
func TestFollowLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "agent.log")
	add := func(text string) {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	add("one\ntwo\nthr")
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := showLog(ctx, w, name, 1, true, consoleLine)
		_ = w.Close()
		done <- err
	}()
	expect := func(want string) {
		t.Helper()
		if got := readLine(r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	expect("two")
	add("ee\nfour\n")
	expect("three")
	expect("four")
	if err := os.WriteFile(name, []byte("anew\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect("anew")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMachineTreeByName(t *testing.T) {
	for program, want := range map[string]string{
		"/usr/bin/docker-machine": "docker-machine", `machine`: "machine", "docker-machine.exe": "docker-machine", "dev": "dev", "docker-compose": "docker-compose",
	} {
		a := &app{program: program}
		if got := a.commandTree([]string{"ls"}).Name(); !strings.HasPrefix(got, want) {
			t.Errorf("%s gives the tree of %q", program, got)
		}
	}
	a := &app{program: "docker-machine"}
	if got := a.commandTree([]string{"hostagent", "x"}).Name(); got != "dev" {
		t.Errorf("docker-machine hostagent is run by %q", got)
	}
}

func TestMachineFlagsFromEnvironment(t *testing.T) {
	a := &app{env: []string{"MACHINE_DRIVER=generic", "ENGINE_REGISTRY_MIRROR=https://a,https://b", "MACHINE_STORAGE_PATH=/m"}}
	m := a.machines()
	var o machineCreate
	f := pflag.NewFlagSet("create", pflag.ContinueOnError)
	o.register(f, a.getenv)
	if err := f.Parse([]string{"--qemu-memory", "3g", "--qemu-cpu-count=3"}); err != nil {
		t.Fatal(err)
	}
	if o.driver != "generic" || len(o.engine.RegistryMirrors) != 2 || o.memory != 3072 || o.cpus != 3 {
		t.Errorf("flags are %+v", o)
	}
	if dir, err := m.storeDir(); err != nil || runtime.GOOS != "windows" && dir != "/m/machines" {
		t.Errorf("machines are in %q, %v", dir, err)
	}
}
