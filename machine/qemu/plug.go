// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

var _ hostagent.Plugger = (*vm)(nil)

// unplugDeadline is how long the guest may take to let a device go.
const unplugDeadline = 30 * time.Second

// slots are the places for shares.
type slots struct {
	mu   sync.Mutex
	tags []string // in each place; "": free
	gone map[string]chan struct{}
}

func newSlots(n int) *slots { return &slots{tags: make([]string, n), gone: map[string]chan struct{}{}} }

// take finds a place for a share.
func (s *slots) take(tag string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := -1
	for i, t := range s.tags {
		switch {
		case t == tag:
			return 0, fmt.Errorf("share %q is plugged in already", tag)
		case t == "" && free < 0:
			free = i
		}
	}
	if free < 0 {
		return 0, fmt.Errorf("the machine has places for %d shares and all are taken", len(s.tags))
	}
	s.tags[free] = tag
	return free, nil
}

func (s *slots) release(tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.tags {
		if t == tag {
			s.tags[i] = ""
		}
	}
}

// leaving makes a channel that is closed when the guest has let the device go.
func (s *slots) leaving(device string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.gone[device] = c
	return c
}

// left takes DEVICE_DELETED.
func (s *slots) left(data json.RawMessage) {
	var e struct {
		Device string `json:"device"`
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.gone[e.Device]; ok {
		close(c)
		delete(s.gone, e.Device)
	}
}

func shareID(tag string) string { return "share-" + tag }

// Plug connects a share's server and gives the guest the device.
func (v *vm) Plug(ctx context.Context, s hostagent.ShareLink) error {
	place, err := v.slots.take(s.Tag)
	if err != nil {
		return fmt.Errorf("plug in share %q: %w", s.Tag, err)
	}
	id := shareID(s.Tag)
	err = v.monitor.call(ctx, "chardev-add", map[string]any{"id": id, "backend": map[string]any{"type": "socket", "data": map[string]any{
		"addr": map[string]any{"type": "unix", "data": map[string]any{"path": s.Socket}}, "server": false,
	}}}, nil)
	if err == nil {
		err = v.monitor.call(ctx, "device_add", map[string]any{
			"driver": "vhost-user-fs-pci", "id": id, "chardev": id, "tag": s.Tag, "queue-size": 1024, "bus": portName(place),
		}, nil)
		if err != nil {
			err = errors.Join(err, v.monitor.call(context.WithoutCancel(ctx), "chardev-remove", map[string]any{"id": id}, nil))
		}
	}
	if err != nil {
		v.slots.release(s.Tag)
		return fmt.Errorf("plug in share %q: %w", s.Tag, err)
	}
	return nil
}

// Unplug asks the guest to let the device go, and waits for that.
func (v *vm) Unplug(ctx context.Context, tag string) error {
	ctx, cancel := context.WithTimeout(ctx, unplugDeadline)
	defer cancel()
	id := shareID(tag)
	gone := v.slots.leaving(id)
	if err := v.monitor.call(ctx, "device_del", map[string]any{"id": id}, nil); err != nil {
		return fmt.Errorf("unplug share %q: %w", tag, err)
	}
	select {
	case <-gone:
	case <-v.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unplug share %q: the guest does not let it go: %w", tag, context.Cause(ctx))
	}
	v.slots.release(tag)
	if err := v.monitor.call(ctx, "chardev-remove", map[string]any{"id": id}, nil); err != nil {
		return fmt.Errorf("unplug share %q: %w", tag, err)
	}
	return nil
}
