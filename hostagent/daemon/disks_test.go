// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestGuestProblem(t *testing.T) {
	for name, c := range map[string]struct {
		health     proto.Health
		code, hint string
	}{
		"well":           {health: proto.Health{OK: true, Disk: proto.Disk{Total: 1000, Free: 500}}},
		"only a warning": {health: proto.Health{Warnings: []string{"almost full"}, Disk: proto.Disk{Total: 1000, Free: 50}}},
		"full":           {health: proto.Health{Problems: []string{"the data disk is full"}, Disk: proto.Disk{Total: 1000, Free: 9}}, code: "disk-full", hint: "dev machine edit --disk SIZE box"},
		"something else": {health: proto.Health{Problems: []string{"the data disk is read-only"}, Disk: proto.Disk{Total: 1000, Free: 500}}, code: "guest", hint: "--console box"},
		"no data disk":   {health: proto.Health{Problems: []string{"a and b"}}, code: "guest", hint: "--console box"},
	} {
		p := guestProblem("box", c.health)
		switch {
		case c.code == "" && p != nil:
			t.Errorf("%s: %+v", name, p)
		case c.code == "":
		case p == nil || p.Code != c.code || !strings.Contains(p.Hint, c.hint) || p.Text != strings.Join(c.health.Problems, "; "):
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// stalling is a VM that stands still until it has been told to go on so many times.
type stalling struct {
	stalls chan error
	tries  chan struct{}
}

func (s *stalling) Stalled() <-chan error { return s.stalls }

func (s *stalling) Stands(context.Context) (bool, error) { return len(s.stalls) > 0, nil }

func (s *stalling) Continue(context.Context) error {
	s.tries <- struct{}{}
	return nil
}

// A VM that stopped itself is told to go on until it does, and the problem is there for just as long.
func TestHostDiskFull(t *testing.T) {
	a := &agent{o: Options{Machine: "box"}, state: newState("box", 1, slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler)}
	vm := &stalling{stalls: make(chan error, 1), tries: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); a.watchHostDisk(ctx, vm, 20*time.Millisecond) }()
	vm.stalls <- errors.New("no space left on device")
	await := func(what string, want bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); a.state.has("host-disk") != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	await("the stop is not told", true)
	<-vm.tries
	vm.stalls <- errors.New("no space left on device") // there still is none
	<-vm.tries
	await("it goes on, and the problem stays", false)
	cancel()
	<-ended
}

// standing is a VM without room until it was told to go on three times.
type standing struct {
	hostagent.VM
	stalling
	left int
}

func (s *standing) Stands(context.Context) (bool, error) { return s.left > 0, nil }

func (s *standing) Continue(context.Context) error {
	s.left--
	return nil
}

// A VM that stands still for want of room is waited for, and only as long as somebody wants it.
func TestAwaitRoom(t *testing.T) {
	a := &agent{o: Options{Machine: "box"}, state: newState("box", 1, slog.New(slog.DiscardHandler)), log: slog.New(slog.DiscardHandler)}
	vm := &standing{left: 3}
	if err := a.awaitRoom(t.Context(), vm, time.Millisecond); err != nil || vm.left != 0 {
		t.Errorf("%v, %d tries are left", err, vm.left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.awaitRoom(ctx, &standing{left: 1 << 30}, time.Hour); err == nil {
		t.Error("it waits for ever")
	}
}
