// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/seed71221737/dev/hostagent"
)

// thriftyVM is a fake VM that memory can be taken from, and whose disk can grow.
type thriftyVM struct {
	*fakeVM
	mu        sync.Mutex
	has, disk int64
	looked    chan struct{} // gets something for each look at the memory
}

func (v *thriftyVM) Balloon(_ context.Context, bytes int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.has = bytes
	return nil
}

func (v *thriftyVM) BalloonSize(context.Context) (int64, error) {
	select {
	case v.looked <- struct{}{}:
	default:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.has, nil
}

func (v *thriftyVM) ResizeDisk(_ context.Context, bytes int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.disk = bytes
	return nil
}

// thrifty makes the machine's VM a thriftyVM.
func (m *fakeMachine) thrifty() *thriftyVM {
	v := &thriftyVM{fakeVM: m.vm, has: 4 << 30, looked: make(chan struct{}, 1)}
	start := m.o.Start
	m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
		if _, err := start(ctx, l); err != nil {
			return nil, err
		}
		return v, nil
	}
	m.o.ReclaimMemory, m.o.MemoryBytes, m.o.CPUs = true, 4<<30, 2
	return v
}

// TestGrowDisk grows the disk of a machine that runs: the VM's first, then the guest's file system.
func TestGrowDisk(t *testing.T) {
	m := newFakeMachine(t)
	v := m.thrifty()
	var grown []int64
	m.grow = func(_ context.Context, bytes int64) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.disk != bytes {
			t.Errorf("the guest grows to %d bytes when the disk has %d", bytes, v.disk)
		}
		if grown = append(grown, bytes); len(grown) > 1 {
			return errors.New("no luck")
		}
		return nil
	}
	m.run()
	if err := m.client.GrowDisk(t.Context(), 8<<30); err != nil || len(grown) != 1 {
		t.Errorf("grown to %v, %v", grown, err)
	}
	if err := m.client.GrowDisk(t.Context(), 9<<30); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("a guest that fails: %v", err)
	}
	if err := m.client.GrowDisk(t.Context(), 5); err == nil {
		t.Error("half a sector was taken for a size")
	}
}

// TestGrowDiskNeedsStart: a VM that cannot says so in a way that can be told from a failure.
func TestGrowDiskNeedsStart(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	var refused *hostagent.RefusedError
	if err := m.client.GrowDisk(t.Context(), 8<<30); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}

// TestMemoryIsWatched: the guest of a machine that runs is asked about its memory, by the protocol that it really speaks.
func TestMemoryIsWatched(t *testing.T) {
	needPressure(t)
	m := newFakeMachine(t)
	v := m.thrifty()
	m.run()
	select {
	case <-v.looked:
	case <-time.After(patience):
		t.Error("nobody looks at the machine's memory")
	}
}

// needPressure skips the test where the kernel does not tell when memory is short.
func needPressure(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/proc/pressure/memory", os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteString("some 200000 2000000\x00")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Skipf("this kernel does not tell when memory is short: %v", err)
	}
}

func TestFrees(t *testing.T) {
	for _, c := range []struct {
		kind   events.Type
		action events.Action
		want   bool
		id     string
	}{
		{events.ImageEventType, events.ActionDelete, true, ""}, {events.VolumeEventType, events.ActionPrune, true, ""},
		{events.ContainerEventType, events.ActionDestroy, true, "x"}, {events.BuilderEventType, events.ActionPrune, true, ""},
		{events.ContainerEventType, events.ActionPrune, true, ""}, {events.ContainerEventType, events.ActionDie, false, "x"},
		{events.NetworkEventType, events.ActionDestroy, false, ""}, {events.VolumeEventType, events.ActionDestroy, true, ""},
	} {
		e := events.Message{Type: c.kind, Action: c.action, Actor: events.Actor{ID: "x"}}
		id, _ := concerns(e)
		if got := frees(e); got != c.want || id != c.id {
			t.Errorf("%s %s: frees %v, concerns %q", c.kind, c.action, got, id)
		}
	}
}
