// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
)

// createLarge makes a machine with a disk of 1 GiB and something on it.
func (h *home) createLarge(name string) *machine.Machine {
	h.t.Helper()
	m := h.create(name)
	_, err := m.Edit(h.ctx(), func(s *machine.Spec) error { s.DiskMiB = 1024; return nil })
	if err := errors.Join(err, machine.GrowDisk(m.Dir.DataDisk(), 1024)); err != nil {
		h.t.Fatal(err)
	}
	h.mark(m)
	return m
}

// sized checks the size of the disk and of the spec, and that the user's data is there.
func (h *home) sized(m *machine.Machine, mebibytes int64) {
	h.t.Helper()
	h.marked(m)
	now, err := h.store.Get(m.Name)
	if err != nil {
		h.t.Fatal(err)
	}
	info, err := os.Stat(m.Dir.DataDisk())
	if err != nil || info.Size() != mebibytes<<20 || now.Spec.DiskMiB != int(mebibytes) || len(now.Problems) > 0 {
		h.t.Errorf("the disk has %d bytes, the spec says %d MiB, want %d MiB (%v, %v)", info.Size(), now.Spec.DiskMiB, mebibytes, err, now.Problems)
	}
}

// nothingLeft checks that an operation that came to nothing left nothing behind.
func (h *home) nothingLeft(m *machine.Machine) {
	h.t.Helper()
	u, err := m.Usage()
	snapshots, listErr := m.Snapshots()
	if err := errors.Join(err, listErr); err != nil || u.Unfinished > 0 || len(snapshots) > 0 {
		h.t.Errorf("left: %d bytes, snapshots %v, %v", u.Unfinished, snapshots, err)
	}
	for _, name := range []string{"data.img.new", "report.img", "journal.json"} {
		if _, err := os.Stat(filepath.Join(string(m.Dir), name)); !errors.Is(err, os.ErrNotExist) {
			h.t.Errorf("%s is left (%v)", name, err)
		}
	}
	h.noProcess()
}

func TestShrink(t *testing.T) {
	h := newHome(t)
	m := h.createLarge("m")
	var said []string
	old, err := m.Shrink(h.ctx(), 512, func(e machine.Event) { said = append(said, e.Text) })
	if err != nil {
		t.Fatal(err)
	}
	h.sized(m, 512)
	if n := len(said); n < 3 || said[0] != "copying the disk" || said[n-1] != "3 files with 4 MiB are the same on the smaller disk" {
		t.Errorf("it said %q", said)
	}
	snap, err := m.Snapshot(old)
	if err != nil || snap.Problem != nil || !snap.Automatic() {
		t.Fatalf("the disk as it was: %+v, %v", snap, err)
	}
	h.start(m)
	if err := m.Stop(h.ctx(), machine.StopOptions{Cold: true}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RestoreSnapshot(h.ctx(), old, machine.RestoreOptions{NoSafety: true}, nil); err != nil {
		t.Fatal(err)
	}
	h.sized(m, 1024)
	if err := m.ForgetShrunk(h.ctx(), old); err != nil {
		t.Error(err)
	}
	h.nothingLeft(m)
}

func TestShrinkRefuses(t *testing.T) {
	h := newHome(t)
	m := h.createLarge("m")
	var change *machine.ChangeError
	if _, err := m.Shrink(h.ctx(), 1024, nil); !errors.As(err, &change) {
		t.Errorf("to its size: %v", err)
	}
	var spec *machine.SpecError
	if _, err := m.Shrink(h.ctx(), 100, nil); !errors.As(err, &spec) {
		t.Errorf("to less than a machine needs: %v", err)
	}
	h.start(m)
	var running *machine.RunningError
	if _, err := m.Shrink(h.ctx(), 512, nil); !errors.As(err, &running) {
		t.Errorf("while it runs: %v", err)
	}
	if err := m.Compact(h.ctx(), nil); !errors.As(err, &running) {
		t.Errorf("compact while it runs: %v", err)
	}
	if err := m.Stop(h.ctx(), machine.StopOptions{Cold: true}, nil); err != nil {
		t.Fatal(err)
	}
	h.sized(m, 1024)
	h.nothingLeft(m)
}

// TestShrinkFails: what the guest finds leaves the machine as it was.
func TestShrinkFails(t *testing.T) {
	for how, want := range map[string]string{
		drivertest.StandInFull:  "it needs at least 764 MiB",
		drivertest.StandInDiffs: "its contents differ",
		drivertest.StandInStops: "the VM ended before the work was done",
		drivertest.StandInFails: "told to fail",
	} {
		t.Run(how, func(t *testing.T) {
			h := newHome(t)
			m := h.createLarge("m")
			t.Setenv(drivertest.StandInVariable, how)
			_, err := m.Shrink(h.ctx(), 512, nil)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			h.sized(m, 1024)
			h.nothingLeft(m)
		})
	}
}

func TestShrinkCancelled(t *testing.T) {
	h := newHome(t)
	m := h.createLarge("m")
	ctx, cancel := context.WithCancel(h.ctx())
	_, err := m.Shrink(ctx, 512, func(e machine.Event) {
		if e.Text != "copying the disk" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h.sized(m, 1024)
	h.nothingLeft(m)
}

// TestShrinkKilled kills the command at each step: the disk is the old one or the new one, whole, and the machine starts.
func TestShrinkKilled(t *testing.T) {
	for _, at := range []string{"copying the disk", "checking the copy", "making the copy smaller", "checking the smaller copy", "comparing all files", "done", "3 files"} {
		t.Run(at, func(t *testing.T) {
			h := newHome(t)
			m := h.createLarge("m")
			h.killSaying(at, "shrink", "m")
			h.marked(m)
			h.start(m)
			h.marked(m)
			if err := m.Stop(h.ctx(), machine.StopOptions{Cold: true}, nil); err != nil {
				t.Fatal(err)
			}
			now, err := h.store.Get("m")
			if err != nil {
				t.Fatal(err)
			}
			h.sized(m, int64(now.Spec.DiskMiB))
			if _, err := os.Stat(filepath.Join(string(m.Dir), "data.img.new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a half copy is left (%v)", err)
			}
			h.noProcess()
		})
	}
}

// killSaying runs a command and kills it as soon as it has said something.
func (h *home) killSaying(text string, args ...string) {
	h.t.Helper()
	c := h.cli(args...)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), text) {
			_ = c.Process.Kill()
		}
	}
	_ = c.Wait()
}

func TestCompact(t *testing.T) {
	h := newHome(t)
	m := h.createLarge("m")
	f, err := os.OpenFile(m.Dir.DataDisk(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, 64<<20), 128<<20)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := m.Compact(h.ctx(), func(e machine.Event) { said.WriteString(e.Text + "\n") }); err != nil {
		t.Fatal(err)
	}
	after, err := m.Usage()
	if err != nil || after.Disk > before.Disk || before.Disk >= 64<<20 && after.Disk > 1<<20 {
		t.Errorf("the disk took up %d bytes and takes up %d, %v", before.Disk, after.Disk, err)
	}
	if !strings.Contains(said.String(), "booting it to look after its disk") {
		t.Errorf("it said %q", said.String())
	}
	h.sized(m, 1024)
	h.nothingLeft(m)
}

func TestUsage(t *testing.T) {
	h := newHome(t)
	m := h.create("m")
	dir := string(m.Dir)
	some := bytes.Repeat([]byte("x"), 64<<10)
	for _, name := range []string{"memory/state", "snapshots/a/data.img", "agent.log", "console.log.1", "data.img.new", "surprise"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, some, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	u, err := m.Usage()
	if err != nil {
		t.Fatal(err)
	}
	least := int64(len(some))
	if u.Memory < least || u.Snapshots < least || u.Logs < 2*least || u.Unfinished < least || u.Other < least || u.DiskSize != 512<<20 {
		t.Errorf("got %+v", u)
	}
	if sum := u.Disk + u.Memory + u.Snapshots + u.Logs + u.Unfinished + u.Other; u.Total() != sum {
		t.Errorf("the total is %d, not %d", u.Total(), sum)
	}
}
