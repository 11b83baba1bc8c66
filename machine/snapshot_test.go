// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/snapshots"
	"github.com/seed71221737/dev/vmimage"
)

func (h *home) save(m *machine.Machine, name string) snapshots.Snapshot {
	h.t.Helper()
	snap, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: name, Note: "a note"}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return snap
}

// TestSnapshots: disk and settings come back, what was there before is kept, and images stay while a snapshot needs them.
func TestSnapshots(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	old := m.Spec.Image
	h.write(m, "one")
	if snap := h.save(m, "first"); snap.State != snapshots.Stopped || snap.Note != "a note" || snap.Automatic() || snap.Image != old {
		t.Errorf("%+v", snap)
	}
	h.start(m)
	h.write(m, "two")
	if snap := h.save(m, "second"); snap.State != snapshots.Live {
		t.Errorf("%+v", snap)
	}
	h.phase(m, machine.PhaseRunning)
	if _, err := m.Edit(h.ctx(), func(s *machine.Spec) error { s.CPUs = 3; return nil }); err != nil {
		t.Fatal(err)
	}
	drivertest.Image(t, h.store.Images, "amd64", "next")
	for range 2 { // after the second the machine itself does not name the first image any more
		next := h.imageWith("another", func(i *vmimage.Manifest) { i.Kernel += "x" + h.reread(m).Spec.Image })
		if _, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: next, NoSnapshot: true}, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.settled(m)
	if removed, err := h.store.Images.Prune(h.ctx(), vmimage.PruneOptions{All: true}); err != nil || len(removed) != 1 {
		t.Errorf("pruned %d images, %v", len(removed), err)
	}
	var running *machine.RunningError
	if _, err := m.RestoreSnapshot(h.ctx(), "first", machine.RestoreOptions{}, nil); !errors.As(err, &running) || !strings.Contains(running.Hint(), "--stop") {
		t.Errorf("restore while it runs: %v", err)
	}
	safety, err := m.RestoreSnapshot(h.ctx(), "first", machine.RestoreOptions{Stop: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.phase(m, machine.PhaseRunning)
	m = h.reread(m)
	if m.Spec.CPUs != 1 || m.Spec.Image != old || h.reads(m, 3) != "one" {
		t.Errorf("%d CPUs, image %s, disk %q", m.Spec.CPUs, m.Spec.Image, h.reads(m, 3))
	}
	h.settled(m)
	if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	h.write(m, "six") // what is written now must not be in the snapshots
	if _, err := m.RestoreSnapshot(h.ctx(), safety, machine.RestoreOptions{NoSafety: true}, nil); err != nil {
		t.Fatal(err)
	}
	if m = h.reread(m); m.Spec.CPUs != 3 || h.reads(m, 3) != "two" {
		t.Errorf("%d CPUs, disk %q", m.Spec.CPUs, h.reads(m, 3))
	}
	list, err := m.Snapshots()
	if err != nil || len(list) != 3 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
	for _, s := range list {
		if _, err := m.VerifySnapshot(h.ctx(), s.Name); err != nil {
			t.Error(err)
		}
	}
	var missing *snapshots.NotFoundError
	if _, err := m.RemoveSnapshots(h.ctx(), []string{"first", "nope"}); !errors.As(err, &missing) {
		t.Errorf("rm: %v", err)
	}
	if freed, err := m.RemoveSnapshots(h.ctx(), []string{"first", "second", safety}); err != nil || freed <= 0 {
		t.Errorf("rm: %d, %v", freed, err)
	}
	h.settled(m)
	if _, err := os.Stat(m.Dir.Snapshots()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// TestSaveOfMachineThatEnds: one sentence says that the machine ended, and what to do; nothing is left.
func TestSaveOfMachineThatEnds(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	t.Setenv(agentVariable, agentLoses)
	h.start(m)
	_, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: "s"}, nil)
	var ended *machine.EndedError
	if !errors.As(err, &ended) || err.Error() != `save a snapshot of machine "m": the machine ended meanwhile: QEMU ended: signal: killed` || !strings.Contains(ended.Hint(), "dev machine start m") {
		t.Errorf("it was said: %v", err)
	}
	if left, err := m.Snapshots(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestRestoreRefuses: a snapshot that is torn, whose image is gone, or that a newer dev made is named, and nothing is changed.
func TestRestoreRefuses(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	h.write(m, "now")
	var damaged *snapshots.DamagedError
	for name, harm := range map[string]func(dir string) error{
		"manifest": func(dir string) error { return os.Truncate(filepath.Join(dir, "snapshot.json"), 50) },
		"disk":     func(dir string) error { return os.Truncate(filepath.Join(dir, "data.img"), 4096) },
		"data": func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "data.img"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("x"), 8192)
			return errors.Join(err, f.Close())
		},
	} {
		h.save(m, name)
		dir := filepath.Join(m.Dir.Snapshots(), name)
		for _, file := range []string{"snapshot.json", "data.img"} {
			if err := os.Chmod(filepath.Join(dir, file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := harm(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := m.RestoreSnapshot(h.ctx(), name, machine.RestoreOptions{}, nil); !errors.As(err, &damaged) || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
		if got := h.reads(m, 3); got != "now" {
			t.Errorf("%s: the disk has %q", name, got)
		}
		if _, err := m.RemoveSnapshots(h.ctx(), []string{name}); err != nil {
			t.Error(err)
		}
	}
	h.settled(m)
	h.start(m)
	h.phase(m, machine.PhaseRunning)
}

// TestRestoreBroken: a machine that has lost its disk, or whose settings cannot be read, works again once a snapshot is restored.
func TestRestoreBroken(t *testing.T) {
	for name, harm := range map[string]func(m *machine.Machine) error{
		"disk":  func(m *machine.Machine) error { return os.Remove(m.Dir.DataDisk()) },
		"spec":  func(m *machine.Machine) error { return os.Truncate(m.Dir.Spec(), 20) },
		"image": func(m *machine.Machine) error { return os.WriteFile(m.Dir.Spec(), []byte("version: 99\n"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			h.write(m, "one")
			h.save(m, "good")
			if err := harm(m); err != nil {
				t.Fatal(err)
			}
			m, err := h.store.Get("m")
			if err != nil || len(m.Problems) == 0 {
				t.Fatalf("%v, %v", m.Problems, err)
			}
			safety, err := m.RestoreSnapshot(h.ctx(), "good", machine.RestoreOptions{}, nil)
			if err != nil || (safety == "") != (name == "disk") {
				t.Fatalf("kept %q, %v", safety, err)
			}
			h.start(m)
			h.phase(m, machine.PhaseRunning)
			if got := h.reads(h.reread(m), 3); got != "one" {
				t.Errorf("the disk has %q", got)
			}
			h.settled(m)
		})
	}
}

// TestKillSnapshot kills saving and restoring at many moments: the next command works, the disk is one of the two, and no half of a snapshot is there.
func TestKillSnapshot(t *testing.T) {
	for _, command := range []string{"save", "restore"} {
		t.Run(command, func(t *testing.T) {
			for _, after := range moments(t) {
				h := newHome(t)
				m := h.create("m")
				h.mark(m)
				h.write(m, "one")
				h.save(m, "first")
				h.start(m)
				h.write(m, "two")
				if command == "save" {
					h.killAt(after, "save", "m", "second")
				} else {
					h.killAt(after, "restore", "m", "first")
				}
				h.restored(m, command == "restore")
				h.end()
			}
		})
	}
	for _, step := range []string{"prepare", "switch"} {
		t.Run("restore at "+step, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			h.mark(m)
			h.write(m, "one")
			h.save(m, "first")
			h.write(m, "two")
			c := h.cli("restore", "m", "first")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); _ = c.Wait() }()
			h.step(m, step, ended)
			_ = c.Process.Kill()
			<-ended
			h.restored(m, true)
		})
	}
}

// restored checks that a machine is whole after saving or restoring was killed.
func (h *home) restored(m *machine.Machine, restore bool) {
	h.t.Helper()
	if err := m.Start(h.ctx(), nil); err != nil {
		h.t.Fatalf("start: %v%s", err, details(err))
	}
	h.phase(m, machine.PhaseRunning)
	m = h.reread(m)
	h.marked(m)
	got := h.reads(m, 3)
	if got != "two" && !(restore && got == "one") {
		h.t.Errorf("the disk has %q", got)
	}
	h.save(m, "last") // sweeps what was left
	h.settled(m)
	list, err := m.Snapshots()
	if err != nil {
		h.t.Fatal(err)
	}
	kept := ""
	for _, s := range list {
		if _, err := m.VerifySnapshot(h.ctx(), s.Name); err != nil {
			h.t.Error(err)
		}
		if s.Automatic() {
			kept = s.Name
		}
	}
	if got == "one" && kept == "" {
		h.t.Error("what was there before the restore is not kept")
	}
	if err := m.Stop(h.ctx(), machine.StopOptions{}, nil); err != nil {
		h.t.Fatal(err)
	}
	if kept == "" {
		return
	}
	if _, err := m.RestoreSnapshot(h.ctx(), kept, machine.RestoreOptions{NoSafety: true}, nil); err != nil {
		h.t.Fatal(err)
	}
	if got := h.reads(m, 3); got != "two" {
		h.t.Errorf("what was kept has %q", got)
	}
}

// TestAutomaticSnapshotsEnd: those that dev took by itself do not pile up; the user's stay.
func TestAutomaticSnapshotsEnd(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	h.save(m, "mine")
	for range 6 {
		if _, err := m.RestoreSnapshot(h.ctx(), "mine", machine.RestoreOptions{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	list, err := m.Snapshots()
	if err != nil || len(list) != 4 || list[0].Name != "mine" {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
	h.settled(m)
}
