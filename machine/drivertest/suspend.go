// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/process"
)

// suspender skips the test for drivers whose VMs cannot be suspended.
func suspender(t *testing.T, vm hostagent.VM) hostagent.Suspender {
	t.Helper()
	s, ok := vm.(hostagent.Suspender)
	if !ok {
		t.Skip("the driver's VMs are no hostagent.Suspender")
	}
	return s
}

// settle lets a real guest come so far that it heeds the power button after it was restored.
func (r *rig) settle() {
	r.t.Helper()
	if r.s.Settled != nil {
		r.s.Settled(r.t, r.link)
	}
}

// suspend saves the VM's memory and returns the file.
func (r *rig) suspend(vm hostagent.VM) string {
	r.t.Helper()
	file := filepath.Join(string(r.dir), "state")
	stood := 0
	if err := suspender(r.t, vm).Suspend(r.ctx, file, func(context.Context) error { stood++; return r.there(vm) }); err != nil || stood != 1 {
		r.t.Fatalf("Suspend: %v; the disk was still %d times", err, stood)
	}
	r.await(vm, "Suspend")
	if err := vm.Err(); err != nil {
		r.t.Errorf("Err after Suspend: %v", err)
	}
	r.noProcess()
	return file
}

// there fails where the VM has ended.
func (r *rig) there(vm hostagent.VM) error {
	select {
	case <-vm.Done():
		return errors.New("the VM has ended")
	default:
		return nil
	}
}

// asItIs has nothing to note of a disk that stands still.
func asItIs(context.Context) error { return nil }

// testSuspend: what is saved is restored, twice over, and the guest goes on as the one it was.
func testSuspend(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	d := s.Driver(t)
	vm := r.start(d)
	suspender(t, vm)
	r.settle()
	for range 2 {
		r.link.State = r.suspend(vm)
		loaded := 0
		r.link.Loaded = func(context.Context) error {
			loaded++
			return os.Remove(r.link.State)
		}
		vm = r.start(d)
		if loaded != 1 {
			t.Errorf("Loaded was called %d times", loaded)
		}
		r.alive(vm)
	}
	r.awaitEnd(vm)
	if err := vm.Err(); err != nil {
		t.Errorf("Err after a power-off: %v", err)
	}
}

// testSuspendFails: a file that cannot be written leaves the VM as it was.
func testSuspendFails(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("real VMs take long to boot")
	}
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	sus := suspender(t, vm)
	r.settle()
	file := filepath.Join(string(r.dir), "no folder", "state")
	if err := sus.Suspend(r.ctx, file, asItIs); err == nil {
		t.Error("Suspend into a folder that is not there succeeds")
	}
	r.alive(vm)
	file = filepath.Join(string(r.dir), "state")
	refused := errors.New("the disk is not what it was")
	if err := sus.Suspend(r.ctx, file, func(context.Context) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Suspend with a disk that is refused: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file is left of what was refused")
	}
	r.alive(vm)
	r.link.State = r.suspend(vm)
}

// testSnapshot: the VM goes on, and what was saved is as good as it.
func testSnapshot(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("real VMs take long to boot")
	}
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	snap, ok := vm.(hostagent.Snapshotter)
	if !ok {
		t.Skip("the driver's VMs are no hostagent.Snapshotter")
	}
	file, copied := filepath.Join(string(r.dir), "state"), 0
	if err := snap.Snapshot(r.ctx, file, func(context.Context) error { copied++; return errors.New("no space") }); err == nil {
		t.Error("Snapshot whose disk could not be copied succeeds")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file is left of a snapshot that failed")
	}
	if err := snap.Snapshot(r.ctx, file, func(context.Context) error { copied++; return nil }); err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	if copied != 2 {
		t.Errorf("the disk was copied %d times", copied)
	}
	r.awaitEnd(vm)
	r.link.State = file
	r.alive(r.start(s.Driver(t)))
}

// testRestoreFails: a state that cannot be restored, or is not to be, leaves no process.
func testRestoreFails(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("real VMs take long to boot")
	}
	r := newRig(t, s, "m")
	file := r.suspend(r.start(s.Driver(t)))
	refused := errors.New("refused")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), whole...)
	damaged[20]++
	write := func(data []byte) func() {
		return func() {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		prepare func()
		loaded  error
		driver  func(*testing.T) machine.Driver
	}{
		"cut off":        {prepare: write(whole[:len(whole)/2])},
		"damaged":        {prepare: write(damaged)},
		"not there":      {prepare: func() { os.Remove(file) }},
		"refused":        {prepare: write(whole), loaded: refused},
		"not understood": {prepare: write(whole), driver: s.Losing},
	} {
		c.prepare()
		d := s.Driver
		if c.driver != nil {
			d = c.driver
		}
		r.link.State = file
		r.link.Loaded = func(context.Context) error { return c.loaded }
		vm, err := d(t).Start(r.ctx, r.dir, s.Spec, r.link)
		if err == nil {
			t.Errorf("%s: Start succeeds: %v", name, vm.Kill(r.ctx))
		}
		if c.loaded != nil && !errors.Is(err, refused) {
			t.Errorf("%s: %v", name, err)
		}
		r.noProcess()
	}
}

// testPlug: shares come and go while the VM runs, and one that is plugged in is in the way of Suspend.
func testPlug(t *testing.T, s Subject) {
	if s.Hung == nil {
		t.Skip("a real share needs a server")
	}
	s.Spec.Shares = []machine.Share{{Host: "/a", Type: "virtiofs"}, {Host: "/b", Type: "virtiofs"}}
	r := newRig(t, s, "m")
	r.link.Shares = []hostagent.ShareLink{{Tag: "share0", Socket: "/a.sock"}}
	vm := r.start(s.Driver(t))
	p, ok := vm.(hostagent.Plugger)
	if !ok {
		t.Skip("the driver's VMs are no hostagent.Plugger")
	}
	second := hostagent.ShareLink{Tag: "share1", Socket: "/b.sock"}
	if err := p.Plug(r.ctx, second); err != nil {
		t.Fatalf("Plug: %v", err)
	}
	if err := p.Plug(r.ctx, second); err == nil {
		t.Error("the same share was plugged in twice")
	}
	if err := p.Plug(r.ctx, hostagent.ShareLink{Tag: "share2"}); err == nil {
		t.Error("a share was plugged in that there is no place for")
	}
	if err := suspender(t, vm).Suspend(r.ctx, filepath.Join(string(r.dir), "state"), asItIs); err == nil {
		t.Error("Suspend with shares plugged in succeeds")
	}
	r.alive(vm)
	for _, tag := range []string{"share1", "share0"} {
		if err := p.Unplug(r.ctx, tag); err != nil {
			t.Errorf("Unplug %q: %v", tag, err)
		}
	}
	if err := p.Unplug(r.ctx, "share0"); err == nil {
		t.Error("a share that is gone was unplugged")
	}
	if err := p.Plug(r.ctx, second); err != nil {
		t.Errorf("Plug after Unplug: %v", err)
	}
	if err := p.Unplug(r.ctx, second.Tag); err != nil {
		t.Errorf("Unplug: %v", err)
	}
	r.suspend(vm)
}

// staysAwake fails to suspend a VM, which goes on.
func (r *rig) staysAwake(vm hostagent.VM) {
	r.t.Helper()
	file := filepath.Join(string(r.dir), "state")
	if err := suspender(r.t, vm).Suspend(r.ctx, file, asItIs); err == nil {
		r.t.Error("Suspend succeeds")
	}
	if _, err := os.Stat(file); err == nil {
		r.t.Error("a file is left")
	}
	r.alive(vm)
}

// testSuspendRefused: a VM that does not end when it was saved goes on, and is missed when it ends by itself later.
func testSuspendRefused(t *testing.T, s Subject) {
	if s.Staying == nil {
		t.Skip("no VM that does not end")
	}
	r := newRig(t, s, "m")
	vm := r.start(s.Staying(t))
	r.staysAwake(vm)
	found, err := process.Find(r.ctx, func(args []string) bool { return strings.Contains(strings.Join(args, " "), string(r.dir)) })
	if err != nil || len(found) == 0 {
		t.Fatalf("find the VM: %v", err)
	}
	for _, p := range found {
		if err := p.Kill(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.await(vm, "the kill")
	if vm.Err() == nil {
		t.Error("nobody says that the VM ended unexpectedly")
	}
}

// testFindPaused: a VM whose process' death came while its memory was being saved ends in order as others do, though its guest stood still.
func testFindPaused(t *testing.T, s Subject) {
	r := newRig(t, s, "m")
	vm := r.start(s.Driver(t))
	sus := suspender(t, vm)
	r.settle()
	still, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- sus.Suspend(r.ctx, filepath.Join(string(r.dir), "state"), func(ctx context.Context) error {
			abandon(t, vm)
			close(still)
			return errors.New("the process is dead")
		})
	}()
	<-still
	if err := <-ended; err == nil {
		t.Error("Suspend succeeds")
	}
	found := r.find(s.Driver(t))
	if found == nil {
		t.Fatal("Find: none")
	}
	r.awaitEnd(found)
	r.await(vm, "power-off of what was found")
}

// testUnsavable: a VM that cannot be saved says so and goes on.
func testUnsavable(t *testing.T, s Subject) {
	if s.Keeping == nil {
		t.Skip("no VM that cannot be saved")
	}
	r := newRig(t, s, "m")
	vm := r.start(s.Keeping(t))
	r.staysAwake(vm)
	r.awaitEnd(vm)
}
