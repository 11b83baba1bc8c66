// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
)

// tmpfs mounts a small file system of its own, or skips the test.
func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// TestFullHome: creating says that there is no space, leaves nothing, and works once there is.
func TestFullHome(t *testing.T) {
	h := newHome(t)
	tmpfs(t, h.store.Dir, "size=16k")
	_, err := h.store.Create(h.ctx(), "m", testSpec(), machine.CreateOptions{}, nil)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), `create machine "m"`) {
		t.Errorf("create on a full file system: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(h.store.Dir, ".tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := unix.Mount("tmpfs", h.store.Dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	m := h.create("m")
	h.start(m)
	if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	h.clean()
}

// TestReadOnlyHome: what only looks works, what writes says why it cannot.
func TestReadOnlyHome(t *testing.T) {
	h := newHome(t)
	tmpfs(t, h.store.Dir, "size=64m")
	m := h.create("m")
	readOnly := func(flag uintptr) {
		if err := unix.Mount("tmpfs", h.store.Dir, "tmpfs", unix.MS_REMOUNT|flag, ""); err != nil {
			t.Fatal(err)
		}
	}
	readOnly(unix.MS_RDONLY)
	t.Cleanup(func() { readOnly(0) })
	h.phase(m, machine.PhaseStopped)
	if list, err := h.store.List(); err != nil || len(list) != 1 {
		t.Errorf("List: %v, %v", list, err)
	}
	if _, err := h.store.Create(h.ctx(), "n", testSpec(), machine.CreateOptions{}, nil); !errors.Is(err, unix.EROFS) {
		t.Errorf("create: %v", err)
	}
	if err := m.Start(h.ctx(), nil); !errors.Is(err, unix.EROFS) {
		t.Errorf("start: %v", err)
	}
	if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); !errors.Is(err, unix.EROFS) {
		t.Errorf("rm: %v", err)
	}
	readOnly(0)
	h.start(m)
	if err := m.Remove(h.ctx(), machine.RemoveOptions{}, nil); err != nil { // before the file system goes
		t.Fatal(err)
	}
}

// TestNoHome: a folder that cannot be made is named.
func TestNoHome(t *testing.T) {
	h := newHome(t)
	file := filepath.Join(h.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := *h.store
	s.Dir = filepath.Join(file, "machines")
	if list, err := s.List(); err == nil && len(list) > 0 {
		t.Errorf("List: %v", list)
	}
	if _, err := s.Create(h.ctx(), "m", testSpec(), machine.CreateOptions{}, nil); !errors.Is(err, unix.ENOTDIR) || !strings.Contains(err.Error(), file) {
		t.Errorf("create: %v", err)
	}
	drivertest.Image(t, h.store.Images, "amd64", "test")
}

// TestNoRoomForSnapshot: a snapshot that does not fit is refused before anything is written, and an upgrade that is to have one as well, with the machine
// running on.
func TestNoRoomForSnapshot(t *testing.T) {
	h := newHome(t)
	tmpfs(t, h.store.Dir, "size=64m")
	m := h.create("m")
	t.Cleanup(h.end) // before the file system goes
	h.start(m)
	drivertest.Image(t, h.store.Images, "amd64", "next")
	var full *machine.NoRoomError
	if _, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{}, nil); !errors.As(err, &full) || full.Free == 0 {
		t.Errorf("save: %v", err)
	}
	if _, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next"}, nil); !errors.As(err, &full) {
		t.Errorf("upgrade: %v", err)
	}
	h.phase(m, machine.PhaseRunning)
	h.settled(m)
	if r, err := m.Upgrade(h.ctx(), machine.UpgradeOptions{Image: "next", NoSnapshot: true}, nil); err != nil || !r.Changed {
		t.Errorf("upgrade without one: %+v, %v", r, err)
	}
}
