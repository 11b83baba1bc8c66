// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/process"
	"github.com/seed71221737/dev/machine/qemu"
)

func (h *home) processes(kind string) []process.Process {
	h.t.Helper()
	found, err := process.Find(context.Background(), func(args []string) bool {
		all := strings.Join(args, "\x00")
		return strings.Contains(all, h.dir) && strings.Contains(all, kind)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// agents and vms are the processes of the two kinds.
func (h *home) agents() []process.Process { h.t.Helper(); return h.processes("stand-in-agent") }
func (h *home) vms() []process.Process    { h.t.Helper(); return h.processes("-nodefaults") }

func TestLifecycle(t *testing.T) {
	h := newHome(t)
	t.Setenv(agentVariable, agentSlow)
	var said []string
	m, err := h.store.Create(h.ctx(), "default", testSpec(), machine.CreateOptions{Start: true}, func(e machine.Event) { said = append(said, e.Text) })
	if err != nil {
		t.Fatal(err, details(err))
	}
	if all := strings.Join(said, "; "); !strings.Contains(all, "making the machine") || !strings.Contains(all, "waiting for the engine") || !strings.Contains(all, "the machine is running") {
		t.Errorf("said: %s", all)
	}
	status := h.phase(m, machine.PhaseRunning)
	if status.Endpoint != "unix://"+m.Dir.Docker() {
		t.Errorf("endpoint is %q", status.Endpoint)
	}
	if n := len(h.agents()); n != 1 {
		t.Errorf("%d agents", n)
	}
	h.start(m) // again: nothing to do
	if len(h.vms()) != 1 || len(h.agents()) != 1 {
		t.Errorf("after a second start: %d VMs, %d agents", len(h.vms()), len(h.agents()))
	}
	for range 2 {
		if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		h.phase(m, machine.PhaseStopped)
	}
	h.noProcess()
	h.start(m)
	if err := m.Restart(h.ctx(), machine.StopOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	h.phase(m, machine.PhaseRunning)
	for range 2 {
		if err := m.Kill(h.ctx(), nil); err != nil {
			t.Fatal(err)
		}
	}
	h.phase(m, machine.PhaseStopped)
	h.noProcess()
	h.start(m)
	if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	h.noProcess()
	var missing *machine.NotFoundError
	if _, err := h.store.Get("default"); !errors.As(err, &missing) {
		t.Errorf("after the removal: %v", err)
	}
	if err := m.Start(h.ctx(), nil); !errors.As(err, &missing) {
		t.Errorf("start after the removal: %v", err)
	}
	h.clean()
}

// clean checks that the store has nothing but locks, and that no image is in use.
func (h *home) clean() {
	h.t.Helper()
	entries, err := os.ReadDir(h.store.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".locks" {
			h.t.Errorf("the store has %q", e.Name())
		}
	}
	images, err := h.store.Images.List()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, i := range images {
		if len(i.Users) > 0 {
			h.t.Errorf("image %s is used by %v", i.Digest[:6], i.Users)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	h := newHome(t)
	h.create("Taken")
	for _, c := range []struct {
		name string
		edit func(*machine.Spec)
		want string
	}{
		{"", nil, "it is empty"},
		{"a/b", nil, "only letters, digits"},
		{"..", nil, "only letters, digits"},
		{"-x", nil, "the first being a letter or digit"},
		{"ä", nil, "only letters, digits"},
		{"a b", nil, "only letters, digits"},
		{"x.", nil, "ends in a dot"},
		{"CON", nil, "keeps it for a device"},
		{"nul.txt", nil, "keeps it for a device"},
		{strings.Repeat("x", 64), nil, "63 are the most"},
		{"Taken", nil, "exists already"},
		{"taken", nil, "differs only in upper and lower case"},
		{"m", func(s *machine.Spec) { s.Driver = "virtualbox" }, `driver "virtualbox" is not one of qemu`},
		{"m", func(s *machine.Spec) { s.Image = "no-such" }, `find image "no-such"`},
		{"m", func(s *machine.Spec) { s.Arch = "arm64" }, "not on this host"},
		{"m", func(s *machine.Spec) { s.CPUs = 0 }, "cpus is 0"},
		{"m", func(s *machine.Spec) { s.MemoryMiB = 1 }, "memory_mib is 1"},
		{"m", func(s *machine.Spec) { s.DiskMiB = 1 }, "disk_mib is 1"},
		{"m", func(s *machine.Spec) { s.Options = map[string]string{"virtualbox-cpu-count": "1"} }, `option "virtualbox-cpu-count"`},
		{"m", func(s *machine.Spec) { s.Accelerator = "hvf" }, "accelerator"},
		{"m", func(s *machine.Spec) { s.Shares = []machine.Share{{Host: "relative"}} }, `"relative"`},
		{"m", func(s *machine.Spec) { s.Engine.Options = []string{"data-root=/x"} }, "the machine's own"},
		{"m", func(s *machine.Spec) { s.Engine.Env = []string{"NAME"} }, "NAME=value"},
	} {
		spec := testSpec()
		if c.edit != nil {
			c.edit(&spec)
		}
		_, err := h.store.Create(h.ctx(), c.name, spec, machine.CreateOptions{}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("create %q: %v; want %q", c.name, err, c.want)
		}
	}
	list, err := h.store.List()
	if err != nil || len(list) != 1 {
		t.Errorf("after refusals there are %d machines, %v", len(list), err)
	}
}

func TestPathTooLong(t *testing.T) {
	h := newHome(t)
	deep := *h.store
	deep.Dir = filepath.Join(h.dir, strings.Repeat("deep", 20), "machines")
	var path *machine.PathError
	if _, err := deep.Create(h.ctx(), "m", testSpec(), machine.CreateOptions{}, nil); !errors.As(err, &path) || !strings.Contains(path.Hint(), "DEV_HOME") {
		t.Errorf("%v", err)
	}
}

func TestOddHome(t *testing.T) {
	outer := newHome(t)
	dir := filepath.Join(outer.dir, "a b,c=ü")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h := newHomeIn(t, dir)
	m := h.create("a.b-c")
	h.start(m)
	h.phase(m, machine.PhaseRunning)
	if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	h.noProcess()
}

func TestStartFails(t *testing.T) {
	for _, c := range []struct {
		qemu, agent, want string
		stage             hostagent.Stage
	}{
		{drivertest.StandInFails, agentGood, "the stand-in was told to fail", hostagent.StageProcess},
		{drivertest.StandInQuits, agentGood, "ended without a word", hostagent.StageProcess},
		{drivertest.StandInGood, agentFails, "the engine did not answer", hostagent.StageEngine},
		{drivertest.StandInGood, agentDies, "told to die", ""},
	} {
		t.Run(c.want, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			t.Setenv(drivertest.StandInVariable, c.qemu)
			t.Setenv(agentVariable, c.agent)
			err := m.Start(h.ctx(), nil)
			var failed *machine.StartError
			if !errors.As(err, &failed) {
				t.Fatalf("start: %v", err)
			}
			// An agent may fail before anybody asked it for its stage: its log says why then.
			if failed.Stage != c.stage && failed.Stage != "" || !strings.Contains(err.Error(), c.want) || !strings.Contains(failed.Hint(), "dev machine logs") {
				t.Errorf("start: stage %q: %v (%s)", failed.Stage, err, failed.Hint())
			}
			if c.agent == agentFails && !strings.Contains(strings.Join(failed.Console, "\n"), "stand-in: booting") {
				t.Errorf("console: %q", failed.Console)
			}
			h.noProcess()
			h.phase(m, machine.PhaseStopped)
			t.Setenv(drivertest.StandInVariable, drivertest.StandInGood)
			t.Setenv(agentVariable, agentGood)
			h.start(m)
		})
	}
}

func TestStartNeedsQEMU(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	t.Setenv(drivertest.StandInVariable, drivertest.StandInOld)
	var check *machine.CheckError
	if err := m.Start(h.ctx(), nil); !errors.As(err, &check) || !strings.Contains(err.Error(), "version is 6.2") {
		t.Errorf("start with an old QEMU: %v", err)
	}
	h.phase(m, machine.PhaseStopped)
	gone := *h.store
	gone.Drivers = map[string]machine.Driver{"qemu": &qemu.Driver{Images: h.store.Images, State: h.dir, Logger: h.store.Logger, Program: filepath.Join(h.dir, "qemu-system-x86_64")}}
	m, err := gone.Get("m")
	if err != nil {
		t.Fatal(err)
	}
	var missing *qemu.MissingError
	if err := m.Start(h.ctx(), nil); !errors.As(err, &check) || !errors.As(err, &missing) || !strings.Contains(missing.Hint(), "install") {
		t.Errorf("start without QEMU: %v", err)
	}
}

// TestBrokenMachines: every command names what is wrong, and rm works.
func TestBrokenMachines(t *testing.T) {
	h := newHome(t)
	h.create("good")
	for name, damage := range map[string]func(machine.Dir) error{
		"no-spec":        func(d machine.Dir) error { return os.Remove(d.Spec()) },
		"empty-spec":     func(d machine.Dir) error { return os.WriteFile(d.Spec(), nil, 0o600) },
		"torn-spec":      func(d machine.Dir) error { return os.WriteFile(d.Spec(), []byte("version: 1\ndriver: qe"), 0o600) },
		"newer-spec":     func(d machine.Dir) error { return os.WriteFile(d.Spec(), []byte("version: 99\nnovelty: yes\n"), 0o600) },
		"other-driver":   func(d machine.Dir) error { return replaceIn(d.Spec(), "driver: qemu", "driver: vfkit") },
		"no-disk":        func(d machine.Dir) error { return os.Remove(d.DataDisk()) },
		"no-key":         func(d machine.Dir) error { return os.Remove(d.SSHKey()) },
		"spec-is-folder": func(d machine.Dir) error { return errors.Join(os.Remove(d.Spec()), os.Mkdir(d.Spec(), 0o700)) },
	} {
		m := h.create(name)
		if err := damage(m.Dir); err != nil {
			t.Fatal(err)
		}
		m, err := h.store.Get(name)
		if err != nil {
			t.Errorf("%s: Get: %v", name, err)
			continue
		}
		status := h.phase(m, machine.PhaseBroken)
		if len(status.Problems) == 0 {
			t.Errorf("%s: broken without a reason", name)
		}
		if err := m.Start(h.ctx(), nil); err == nil {
			t.Errorf("%s: start succeeds", name)
		}
		if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
			t.Errorf("%s: stop: %v", name, err)
		}
	}
	list, err := h.store.List()
	if err != nil || len(list) != 9 {
		t.Fatalf("List: %d machines, %v", len(list), err)
	}
	for i, status := range machine.Statuses(h.ctx(), list) {
		if good := list[i].Name == "good"; good != (status.Phase == machine.PhaseStopped) {
			t.Errorf("%s: %s", list[i].Name, status.Phase)
		}
	}
	for _, m := range list {
		if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); err != nil {
			t.Errorf("%s: remove: %v", m.Name, err)
		}
	}
	entries, err := os.ReadDir(h.store.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func replaceIn(name, old, with string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, bytes.Replace(data, []byte(old), []byte(with), 1), 0o600)
}

func TestEdit(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	if err := os.WriteFile(m.Dir.DataDisk()+".mark", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	restart, err := m.Edit(h.ctx(), func(s *machine.Spec) error {
		s.CPUs, s.MemoryMiB, s.DiskMiB = 2, 1024, 1024
		s.Shares = append(s.Shares, machine.Share{Host: h.dir, ReadOnly: true})
		return nil
	})
	if err != nil || restart {
		t.Fatalf("edit: restart %v, %v", restart, err)
	}
	for what, change := range map[string]func(*machine.Spec){
		"the disk":         func(s *machine.Spec) { s.DiskMiB = 700 },
		"the driver":       func(s *machine.Spec) { s.Driver = "vfkit" },
		"the architecture": func(s *machine.Spec) { s.Arch = "arm64" },
		"the image":        func(s *machine.Spec) { s.Image = strings.Repeat("0", 64) },
	} {
		var refused *machine.ChangeError
		if _, err := m.Edit(h.ctx(), func(s *machine.Spec) error { change(s); return nil }); !errors.As(err, &refused) || refused.Field != what {
			t.Errorf("change of %s: %v", what, err)
		}
	}
	h.start(m)
	info, err := os.Stat(m.Dir.DataDisk())
	if err != nil || info.Size() != 1024<<20 {
		t.Errorf("the disk has %d bytes, %v", info.Size(), err)
	}
	again, err := h.store.Get("m")
	if err != nil || again.Spec.CPUs != 2 || len(again.Spec.Shares) != 1 {
		t.Errorf("read again: %+v, %v", again.Spec, err)
	}
	if restart, err := again.Edit(h.ctx(), func(s *machine.Spec) error { s.CPUs = 3; return nil }); err != nil || !restart {
		t.Errorf("edit while it runs: restart %v, %v", restart, err)
	}
}

func TestUpgrade(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	old := m.Spec.Image
	h.start(m)
	next := drivertest.Image(t, h.store.Images, "amd64", "next")
	// An upgrade that was killed had noted the use of its image, and no more.
	stray := drivertest.Image(t, h.store.Images, "amd64", "stray")
	if err := h.store.Images.Use(h.ctx(), stray, "m"); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, nil); err != nil || !r.Changed {
		t.Fatalf("upgrade: %+v, %v", r, err)
	}
	h.phase(m, machine.PhaseRunning)
	m, err := h.store.Get("m")
	if err != nil || m.Spec.Image != next || m.Spec.Previous != old {
		t.Fatalf("image %s, previous %s, %v", m.Spec.Image, m.Spec.Previous, err)
	}
	users := func(digest string) []string {
		t.Helper()
		image, err := h.store.Images.Find(digest, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		return image.Users
	}
	if len(users(stray)) != 0 || len(users(old)) != 1 || len(users(next)) != 1 {
		t.Errorf("the machine uses %q of a stray image, %q of the old and %q of the new", users(stray), users(old), users(next))
	}
	if r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, nil); err != nil || r.Changed {
		t.Errorf("upgrade to what it has: %+v, %v", r, err)
	}
}

func TestKeysAndIdentity(t *testing.T) {
	h := newHome(t)
	a, b := h.create("a"), h.create("b.c")
	keysA, err := a.Keys()
	if err != nil {
		t.Fatal(err)
	}
	keysB, err := b.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(keysA.Login.PublicKey().Marshal(), keysB.Login.PublicKey().Marshal()) || bytes.Equal(keysA.Login.PublicKey().Marshal(), keysA.Host.PublicKey().Marshal()) {
		t.Error("keys are shared")
	}
	idA, errA := a.Identity()
	idB, errB := b.Identity()
	if errA != nil || errB != nil || idA.MAC == idB.MAC || len(idA.ID) != 32 || !strings.HasPrefix(idA.MAC, "52:54:00:") {
		t.Errorf("%+v %v, %+v %v", idA, errA, idB, errB)
	}
	known, err := os.ReadFile(b.Dir.KnownHosts())
	if err != nil {
		t.Fatal(err)
	}
	_, hosts, key, _, _, err := ssh.ParseKnownHosts(known)
	if err != nil || hosts[0] != machine.HostKeyAlias("b.c") || !bytes.Equal(key.Marshal(), keysB.Host.PublicKey().Marshal()) {
		t.Errorf("known hosts: %v %v", hosts, err)
	}
	if got := b.Hostname(); got != "b-c" {
		t.Errorf("host name %q", got)
	}
	info, err := os.Stat(a.Dir.SSHKey())
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	var stopped *machine.NotRunningError
	if _, err := a.SSHTarget(h.ctx()); !errors.As(err, &stopped) || stopped.Phase != machine.PhaseStopped {
		t.Errorf("SSH to a stopped machine: %v", err)
	}
	h.start(a)
	target, err := a.SSHTarget(h.ctx())
	if err != nil || target.Address != "127.0.0.1:1" || target.User != "root" {
		t.Errorf("%+v, %v", target, err)
	}
}

func TestStartCancelled(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	t.Setenv(agentVariable, agentSlow)
	ctx, cancel := context.WithCancel(h.ctx())
	err := m.Start(ctx, func(e machine.Event) {
		if e.Stage == hostagent.StageLink {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on starting") {
		t.Fatalf("start: %v", err)
	}
	begin := time.Now()
	h.start(m) // waits for the one under way
	if len(h.agents()) != 1 || len(h.vms()) != 1 {
		t.Errorf("%d agents, %d VMs after %s", len(h.agents()), len(h.vms()), time.Since(begin))
	}
}
