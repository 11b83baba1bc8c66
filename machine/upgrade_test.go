// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/vmimage"
)

// reread is the machine as it is on disk now.
func (h *home) reread(m *machine.Machine) *machine.Machine {
	h.t.Helper()
	m, err := h.store.Get(m.Name)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(m.Problems) > 0 {
		h.t.Fatalf("the machine is not whole: %v", m.Problems)
	}
	return m
}

// settled checks that nothing is left of a change: no journal, nothing half done, and no image in use but those that the machine names.
func (h *home) settled(m *machine.Machine) {
	h.t.Helper()
	m = h.reread(m)
	entries, err := os.ReadDir(string(m.Dir))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name == filepath.Base(m.Dir.Journal()) || strings.HasPrefix(name, "data.img.") {
			h.t.Errorf("%s is left", name)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(m.Dir.Snapshots(), ".tmp-*")); len(left) > 0 {
		h.t.Errorf("left: %v", left)
	}
	used := []string{m.Spec.Image, m.Spec.Previous}
	list, err := m.Snapshots()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, s := range list {
		if s.Problem != nil {
			h.t.Errorf("snapshot %s: %v", s.Name, s.Problem)
		}
		used = append(used, s.Image)
	}
	images, err := h.store.Images.List()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, i := range images {
		if uses := slices.Contains(i.Users, m.Name); uses != slices.Contains(used, i.Digest) {
			h.t.Errorf("image %s is used: %v", i.Digest[:6], uses)
		}
	}
}

// write puts text where mark puts its own, and reads is what is there.
func (h *home) write(m *machine.Machine, text string) {
	h.t.Helper()
	f, err := os.OpenFile(m.Dir.DataDisk(), os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 8192); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) reads(m *machine.Machine, n int) string {
	h.t.Helper()
	f, err := os.Open(m.Dir.DataDisk())
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, n)
	if _, err := f.ReadAt(data, 8192); err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

// said collects what a command tells.
type said []string

func (s *said) sink(e machine.Event) { *s = append(*s, e.Text) }

func (s said) String() string { return strings.Join(s, "; ") }

// imageWith adds an image that is like the others but for what change does to its manifest.
func (h *home) imageWith(tag string, change func(*vmimage.Manifest)) string {
	h.t.Helper()
	return drivertest.ImageWith(h.t, h.store.Images, "amd64", tag, change)
}

// image is the digest of a tag.
func (h *home) image(tag string) string {
	h.t.Helper()
	i, err := h.store.Images.Find(tag, "amd64")
	if err != nil {
		h.t.Fatal(err)
	}
	return i.Digest
}

// containers plays the containers of an engine.
type containers struct {
	running []machine.Container
	resumed []string
	refuse  error
}

func (c *containers) Running(context.Context, string) ([]machine.Container, error) {
	return c.running, nil
}

func (c *containers) Resume(_ context.Context, _ string, list []machine.Container) ([]string, error) {
	for _, one := range list {
		c.resumed = append(c.resumed, one.Name)
	}
	refuse := c.refuse
	c.refuse = nil
	return []string{"one of them ended"}, refuse
}

func TestUpgradeKeepsState(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			h := newHome(t)
			held := &containers{running: []machine.Container{{ID: "1", Name: "web"}, {ID: "2", Name: "db"}}}
			h.store.Containers = held
			m := h.create("m")
			old := m.Spec.Image
			h.mark(m)
			want := machine.PhaseStopped
			if running {
				h.start(m)
				want = machine.PhaseRunning
			}
			next := drivertest.Image(t, h.store.Images, "amd64", "next")
			var all said
			r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, all.sink)
			if err != nil || !r.Changed || r.Snapshot == "" || r.Plan.Runs != running {
				t.Fatalf("%+v, %v", r, err)
			}
			h.phase(m, want)
			m = h.reread(m)
			if m.Spec.Image != next || m.Spec.Previous != old {
				t.Errorf("image %s, previous %s", m.Spec.Image, m.Spec.Previous)
			}
			h.marked(m)
			h.settled(m)
			if got := strings.Join(held.resumed, " "); running != (got == "web db") {
				t.Errorf("containers started again: %q", got)
			}
			if running && !strings.Contains(all.String(), "one of them ended") {
				t.Errorf("said: %s", all)
			}
			snap, err := m.Snapshot(r.Snapshot)
			if err != nil || !snap.Automatic() || snap.Image != old {
				t.Errorf("snapshot %+v, %v", snap, err)
			}
			if r, err = m.Upgrade(h.ctx(), machine.UpgradeOptions{Rollback: true}, nil); err != nil || !r.Changed {
				t.Fatalf("rollback: %+v, %v", r, err)
			}
			if m = h.reread(m); m.Spec.Image != old || m.Spec.Previous != next {
				t.Errorf("after the rollback: image %s, previous %s", m.Spec.Image, m.Spec.Previous)
			}
			h.phase(m, want)
			h.settled(m)
		})
	}
}

// TestUpgradeGoesBack: an image that does not start, or is not well, or whose engine does not run the containers, is not kept.
func TestUpgradeGoesBack(t *testing.T) {
	for name, running := range map[string]bool{agentFails: true, agentUnwell: false, agentDies: true, "containers": true} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			old := m.Spec.Image
			h.mark(m)
			want := machine.PhaseStopped
			if running {
				h.start(m)
				want = machine.PhaseRunning
			}
			bad := drivertest.Image(t, h.store.Images, "amd64", "bad")
			t.Setenv(agentVariable, agentWith(name, bad))
			if name == "containers" {
				h.store.Containers = &containers{running: []machine.Container{{ID: "1", Name: "web"}}, refuse: errors.New("no such container")}
			}
			var all said
			_, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "bad", Patience: time.Second}, all.sink)
			var failed *machine.UpgradeError
			var start *machine.StartError
			if !errors.As(err, &failed) || failed.Back != nil || !errors.As(err, &start) || !strings.Contains(err.Error(), "the machine has its old image back") {
				t.Fatalf("%v", err)
			}
			why := map[string]string{agentFails: "the engine did not answer", agentUnwell: "the guest feels ill", agentDies: "was told to die", "containers": "no such container"}[name]
			if !strings.Contains(err.Error(), why) {
				t.Errorf("%v; want %q", err, why)
			}
			if !strings.Contains(all.String(), "going back to image "+old[:12]) {
				t.Errorf("said: %s", all)
			}
			h.phase(m, want)
			if m = h.reread(m); m.Spec.Image != old || m.Spec.Previous != "" {
				t.Errorf("image %s, previous %q", m.Spec.Image, m.Spec.Previous)
			}
			h.marked(m)
			h.settled(m)
		})
	}
}

// TestUpgradeLayouts: a newer image changes the data's layout and fails: the disk goes back, too, and what was on it last is kept. Once it is kept, older
// images are refused before anything is touched.
func TestUpgradeLayouts(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	old := m.Spec.Image
	h.write(m, "old")
	newer := h.imageWith("newer", func(i *vmimage.Manifest) { i.DataSchema, i.DataOldest = 2, 2 })
	t.Setenv(agentVariable, agentWith(agentUnwell, newer))
	_, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: newer, Patience: time.Second}, nil)
	var failed *machine.UpgradeError
	if !errors.As(err, &failed) || failed.Back != nil || failed.Kept == "" {
		t.Fatalf("%v", err)
	}
	m = h.reread(m)
	if m.Spec.Image != old || m.Spec.DataOldest != 0 || h.reads(m, 3) != "old" {
		t.Errorf("image %s, layout %d, disk %q", m.Spec.Image, m.Spec.DataOldest, h.reads(m, 3))
	}
	h.settled(m)
	if snap, err := m.Snapshot(failed.Kept); err != nil || snap.Image != newer {
		t.Errorf("what was on the disk last: %+v, %v", snap, err)
	}
	t.Setenv(agentVariable, agentGood)
	r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: newer}, nil)
	if err != nil || !r.Changed {
		t.Fatalf("upgrade: %+v, %v", r, err)
	}
	h.write(m, "new")
	if m = h.reread(m); m.Spec.DataOldest != 2 {
		t.Errorf("layout %d", m.Spec.DataOldest)
	}
	before, err := os.ReadFile(m.Dir.Spec())
	if err != nil {
		t.Fatal(err)
	}
	var layout *machine.LayoutError
	for _, o := range []machine.UpgradeOptions{{Image: old}, {Rollback: true}} {
		if _, err := m.Upgrade(h.ctx(), o, nil); !errors.As(err, &layout) || layout.Snapshot != r.Snapshot || !strings.Contains(layout.Hint(), "dev machine snapshot restore m "+r.Snapshot) {
			t.Errorf("downgrade %+v: %v, snapshot %q", o, err, layout.Snapshot)
		}
	}
	if after, err := os.ReadFile(m.Dir.Spec()); err != nil || string(after) != string(before) {
		t.Errorf("a refused downgrade changed the spec to\n%s%v", after, err)
	}
	// The snapshot brings all of it back.
	if _, err := m.RestoreSnapshot(h.ctx(), r.Snapshot, machine.RestoreOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if m = h.reread(m); m.Spec.Image != old || m.Spec.DataOldest != 0 || h.reads(m, 3) != "old" {
		t.Errorf("after the restore: image %s, layout %d, disk %q", m.Spec.Image, m.Spec.DataOldest, h.reads(m, 3))
	}
	h.settled(m)
}

// newerLayout is an image that writes a layout of the data that the machine's own does not know, and is not well.
func (h *home) newerLayout() string {
	h.t.Helper()
	newer := h.imageWith("newer", func(i *vmimage.Manifest) { i.DataSchema, i.DataOldest = 2, 2 })
	h.t.Setenv(agentVariable, agentWith(agentUnwell, newer))
	return newer
}

// TestUpgradeWithoutWayBack: where the old image cannot be brought back the machine keeps the new one, and can be started with it: nothing stays locked.
func TestUpgradeWithoutWayBack(t *testing.T) {
	for name, runs := range map[string]bool{"that ran": true, "that was stopped": false} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			earlier, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: "earlier"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.mark(m)
			want := machine.PhaseStopped
			if runs {
				h.start(m)
				want = machine.PhaseRunning
			}
			newer := h.newerLayout()
			r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: newer, NoSnapshot: true, Patience: time.Second}, nil)
			var failed *machine.UpgradeError
			if !errors.As(err, &failed) || failed.Stuck == nil || failed.Back != nil || !r.Changed || failed.Snapshot != earlier.Name {
				t.Fatalf("%+v, %v", r, err)
			}
			if text := err.Error(); !strings.Contains(text, "the guest feels ill") || !strings.Contains(text, "keeps the new image") || !strings.Contains(text, "has layout 2") {
				t.Errorf("said: %s", text)
			}
			if hint := failed.Hint(); !strings.Contains(hint, "dev machine start m") || !strings.Contains(hint, "dev machine snapshot restore m earlier") {
				t.Errorf("hint: %s", hint)
			}
			h.phase(m, want)
			if m = h.reread(m); m.Spec.Image != newer {
				t.Errorf("image %s", m.Spec.Image)
			}
			h.marked(m)
			h.settled(m)
			if problems := m.Status(h.ctx()).Problems; len(problems) > 0 {
				t.Errorf("problems: %v", problems)
			}
			h.start(m)
			h.must(m.Stop(h.ctx(), machine.StopOptions{}, nil))
			t.Setenv(agentVariable, agentGood)
			h.start(m)
			if _, err := m.RestoreSnapshot(h.ctx(), earlier.Name, machine.RestoreOptions{Stop: true}, nil); err != nil {
				t.Errorf("restore: %v", err)
			}
			h.settled(m)
		})
	}
}

// TestUpgradeLosesItsWayBack: the snapshot that an interrupted upgrade would bring back is of no use any more, which shows at a glance or when it is read. The
// next start keeps the new image and starts it.
func TestUpgradeLosesItsWayBack(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"gone":        os.RemoveAll,
		"no manifest": func(dir string) error { return os.Remove(filepath.Join(dir, "snapshot.json")) },
		"damaged": func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "data.img"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("damage"), 8192)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			h.mark(m)
			newer := h.newerLayout()
			t.Setenv(agentVariable, agentWith(agentStays, newer))
			c := h.cli("upgrade", "m", newer)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); _ = c.Wait() }()
			h.step(m, "try", ended)
			h.await("a VM", func() bool { return len(h.vms()) > 0 })
			_ = c.Process.Kill()
			<-ended
			list, err := m.Snapshots()
			if err != nil || len(list) != 1 {
				t.Fatalf("snapshots %v, %v", list, err)
			}
			if _, err := m.RemoveSnapshots(h.ctx(), []string{list[0].Name}); err == nil || !strings.Contains(err.Error(), "was interrupted") {
				t.Errorf("the way back of an upgrade was removed: %v", err)
			}
			h.must(m.Kill(h.ctx(), nil))
			h.must(spoil(filepath.Join(m.Dir.Snapshots(), list[0].Name)))
			t.Setenv(agentVariable, agentWith(agentFails, newer))
			var all said
			if err := m.Start(h.ctx(), all.sink); err == nil || !strings.Contains(all.String(), "keeps the new image") {
				t.Errorf("start: %v; said: %s", err, all)
			}
			if _, err := os.Stat(m.Dir.Journal()); err == nil {
				t.Error("the upgrade is still unfinished")
			}
			t.Setenv(agentVariable, agentGood)
			h.start(m)
			h.phase(m, machine.PhaseRunning)
			if m = h.reread(m); m.Spec.Image != newer {
				t.Errorf("image %s", m.Spec.Image)
			}
			h.marked(m)
		})
	}
}

func TestUpgradeRefuses(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	h.start(m)
	h.imageWith("ancient", func(i *vmimage.Manifest) { i.GuestProtocol = 0 })
	damaged := h.imageWith("damaged", func(i *vmimage.Manifest) { i.Kernel = "damaged" })
	kernel := filepath.Join(h.store.Images.Dir, "images", damaged, vmimage.KernelName)
	if err := errors.Join(os.Chmod(kernel, 0o644), os.WriteFile(kernel, []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	drivertest.Image(t, h.store.Images, "arm64", "foreign")
	for image, want := range map[string]string{
		"ancient": "speaks control protocol 0", "damaged": "verify image", "foreign": `upgrade machine "m": find image "foreign"`, "nothing": `find image "nothing"`,
	} {
		if _, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: image}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", image, err, want)
		}
	}
	if _, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Rollback: true}, nil); err == nil || !strings.Contains(err.Error(), "it has not been upgraded") {
		t.Errorf("rollback: %v", err)
	}
	h.phase(m, machine.PhaseRunning)
	h.settled(m)
}

// TestPlanUpgrade changes nothing.
func TestPlanUpgrade(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	next := h.imageWith("next", func(i *vmimage.Manifest) { i.GuestProtocol, i.Engine = 99, "9.9" })
	p, err := m.PlanUpgrade(h.ctx(), machine.UpgradeOptions{Image: "next"})
	if err != nil || p.Same() || p.New.Digest != next || p.New.Engine != "9.9" || !p.Snapshot || p.Runs || len(p.Warnings) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = m.PlanUpgrade(h.ctx(), machine.UpgradeOptions{Image: "test"}); err != nil || !p.Same() {
		t.Errorf("%+v, %v", p, err)
	}
	h.settled(m)
}

// step waits until a command has come to a step of a change, or has ended.
func (h *home) step(m *machine.Machine, step string, ended <-chan struct{}) {
	h.t.Helper()
	h.await("step "+step, func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		data, err := os.ReadFile(m.Dir.Journal())
		return err == nil && strings.Contains(string(data), `"step": "`+step+`"`)
	})
}

// TestKillUpgrade kills the command, and at other times the agent and the VM with it, at each step of an upgrade that works and of one that does not. The
// next command goes on or back: the machine runs with one of the images, its data is there, and nothing is left over.
func TestKillUpgrade(t *testing.T) {
	for _, image := range []string{"good", "bad"} {
		for _, step := range []string{"prepare", "try", "proven", "back"} {
			for _, victims := range []string{"command", "all"} {
				if image == "good" && step == "back" || image == "bad" && step == "proven" {
					continue
				}
				t.Run(image+" "+step+" "+victims, func(t *testing.T) { killUpgrade(t, image, step, victims == "all") })
			}
		}
	}
}

func killUpgrade(t *testing.T, tag, step string, all bool) {
	h := newHome(t)
	m := h.create("m")
	old := m.Spec.Image
	h.mark(m)
	h.start(m)
	next := drivertest.Image(t, h.store.Images, "amd64", tag)
	how := agentGood
	if tag == "bad" {
		how = agentWith(agentFails, next)
	}
	t.Setenv(agentVariable, how)
	c := h.cli("upgrade", "m", tag)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	h.step(m, step, ended)
	_ = c.Process.Kill()
	<-ended
	if all {
		h.killAll(h.agents())
		h.killAll(h.vms())
	}
	if err := h.reread(m).Start(h.ctx(), func(e machine.Event) { t.Log(e.Text, e.Hint) }); err != nil {
		t.Fatalf("start: %v%s", err, details(err))
	}
	h.phase(m, machine.PhaseRunning)
	m = h.reread(m)
	if tag == "bad" && m.Spec.Image != old || m.Spec.Image != old && m.Spec.Image != next {
		t.Errorf("image %s", m.Spec.Image)
	}
	h.marked(m)
	h.settled(m)
	if a, v := len(h.agents()), len(h.vms()); a != 1 || v != 1 {
		t.Errorf("%d agents and %d VMs", a, v)
	}
	if status := m.Status(h.ctx()); len(status.Problems) > 0 {
		t.Errorf("problems: %v", status.Problems)
	}
}

// TestKillInUpgrade kills agent or VM while the new image is tried: the command itself goes back.
func TestKillInUpgrade(t *testing.T) {
	for _, victims := range []string{"agent", "VM", "both"} {
		t.Run(victims, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			old := m.Spec.Image
			h.mark(m)
			next := drivertest.Image(t, h.store.Images, "amd64", "next")
			t.Setenv(agentVariable, agentWith(agentStays, next))
			result := make(chan error, 1)
			go func() {
				_, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, nil)
				result <- err
			}()
			h.await("a VM", func() bool { return len(h.vms()) > 0 })
			if victims != "VM" {
				h.killAll(h.agents())
			}
			if victims != "agent" {
				h.killAll(h.vms())
			}
			var failed *machine.UpgradeError
			if err := <-result; !errors.As(err, &failed) || failed.Back != nil {
				t.Fatalf("%v", err)
			}
			h.phase(m, machine.PhaseStopped)
			if m = h.reread(m); m.Spec.Image != old {
				t.Errorf("image %s", m.Spec.Image)
			}
			h.marked(m)
			h.settled(m)
			h.noProcess()
		})
	}
}

// TestUnfinishedUpgrade: an upgrade that was interrupted shows, can be taken back, and is not tried for ever.
func TestUnfinishedUpgrade(t *testing.T) {
	interrupted := func(t *testing.T) (*home, *machine.Machine, string) {
		h := newHome(t)
		m := h.create("m")
		drivertest.Image(t, h.store.Images, "amd64", "next")
		t.Setenv(agentVariable, agentSlow)
		c := h.cli("upgrade", "m", "next")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Wait() }()
		h.step(m, "try", ended)
		_ = c.Process.Kill()
		<-ended
		t.Setenv(agentVariable, agentGood)
		old := m.Spec.Image
		return h, h.reread(m), old
	}
	t.Run("shows", func(t *testing.T) {
		h, m, _ := interrupted(t)
		var unfinished *machine.UnfinishedError
		if err := errors.Join(m.Status(h.ctx()).Problems...); !errors.As(err, &unfinished) || unfinished.Hint() != "`dev machine upgrade m` finishes it" {
			t.Errorf("problems: %v", err)
		}
		if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
			t.Error(err)
		}
		var all said
		if _, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, all.sink); err != nil || !strings.Contains(all.String(), "is finished") {
			t.Errorf("%v; said: %s", err, all)
		}
		h.phase(m, machine.PhaseStopped)
		h.settled(m)
	})
	t.Run("taken back", func(t *testing.T) {
		h, m, old := interrupted(t)
		r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Rollback: true}, nil)
		if err != nil || !r.Changed {
			t.Errorf("%+v, %v", r, err)
		}
		if m = h.reread(m); m.Spec.Image != old {
			t.Errorf("image %s", m.Spec.Image)
		}
		h.phase(m, machine.PhaseStopped)
		h.settled(m)
	})
	t.Run("removed", func(t *testing.T) {
		h, m, _ := interrupted(t)
		if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		h.noProcess()
		h.clean()
	})
	t.Run("then restored", func(t *testing.T) {
		h, m, _ := interrupted(t)
		h.must(m.Stop(h.ctx(), machine.StopOptions{}, nil))
		list, err := m.Snapshots()
		if err != nil || len(list) != 1 {
			t.Fatalf("snapshots %v, %v", list, err)
		}
		var all said
		safety, err := m.RestoreSnapshot(h.ctx(), list[0].Name, machine.RestoreOptions{}, all.sink)
		if err != nil || !strings.Contains(all.String(), "the upgrade to image "+h.image("next")[:12]+" is finished") {
			t.Fatalf("%v; said: %s", err, all)
		}
		if snap, err := m.Snapshot(safety); err != nil || snap.Image != h.image("next") {
			t.Errorf("what was there: %+v, %v", snap, err)
		}
		h.phase(m, machine.PhaseStopped)
		h.settled(m)
	})
	t.Run("a newer dev's", func(t *testing.T) {
		h, m, _ := interrupted(t)
		if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(m.Dir.Journal())
		if err != nil {
			t.Fatal(err)
		}
		newer := strings.Replace(string(data), `"version": 1`, `"version": 3`, 1)
		if err := os.WriteFile(m.Dir.Journal(), []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.Start(h.ctx(), nil); err == nil || !strings.Contains(err.Error(), "use a newer dev") {
			t.Errorf("start: %v", err)
		}
		if after, err := os.ReadFile(m.Dir.Journal()); err != nil || string(after) != newer {
			t.Errorf("the journal was changed: %s, %v", after, err)
		}
		if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Run("not for ever", func(t *testing.T) {
		h, m, old := interrupted(t)
		for range 2 { // the second try, and the third, which is not made
			if err := m.Kill(h.ctx(), nil); err != nil {
				t.Fatal(err)
			}
			t.Setenv(agentVariable, agentSlow)
			c := h.cli("start", "m")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			h.await("an agent", func() bool { return len(h.agents()) > 0 })
			time.Sleep(10 * time.Millisecond)
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		if err := m.Start(h.ctx(), nil); err != nil {
			t.Fatal(err)
		}
		if m = h.reread(m); m.Spec.Image != old {
			t.Errorf("image %s", m.Spec.Image)
		}
		h.settled(m)
	})
}
