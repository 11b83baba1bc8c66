// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"os"
	"testing"

	"github.com/seed71221737/dev/hostagent"
)

// testBalloon takes memory from a guest and gives it back.
func testBalloon(t *testing.T, s Subject) {
	r := newRig(t, s, "balloon")
	vm := r.start(s.Driver(t))
	b, ok := vm.(hostagent.Ballooner)
	if !ok {
		t.Skip("the driver's VMs are no hostagent.Ballooner")
	}
	all := int64(s.Spec.MemoryMiB) << 20
	if has, err := b.BalloonSize(r.ctx); err != nil || has != all {
		t.Errorf("it has %d bytes of %d, %v", has, all, err)
	}
	for _, bytes := range []int64{all / 2, all} {
		if err := b.Balloon(r.ctx, bytes); err != nil {
			t.Errorf("leave it %d bytes: %v", bytes, err)
		}
	}
}

// testResizeDisk grows the disk of a VM that runs; never does it become smaller.
func testResizeDisk(t *testing.T, s Subject) {
	r := newRig(t, s, "resize")
	vm := r.start(s.Driver(t))
	d, ok := vm.(hostagent.Resizer)
	if !ok {
		t.Skip("the driver's VMs are no hostagent.Resizer")
	}
	grown := int64(s.Spec.DiskMiB)<<20 + 64<<20
	for _, bytes := range []int64{grown, grown, 1 << 20} {
		if err := d.ResizeDisk(r.ctx, bytes); err != nil {
			t.Errorf("grow to %d bytes: %v", bytes, err)
		}
		if info, err := os.Stat(r.dir.DataDisk()); err != nil || info.Size() != grown {
			t.Errorf("the disk has %d bytes, want %d (%v)", info.Size(), grown, err)
		}
	}
	r.alive(vm)
}
