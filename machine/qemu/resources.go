// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"

	"github.com/seed71221737/dev/hostagent"
)

var (
	_ hostagent.Ballooner = (*vm)(nil)
	_ hostagent.Resizer   = (*vm)(nil)
)

// BalloonSize is how many bytes the guest has now.
func (v *vm) BalloonSize(ctx context.Context) (int64, error) { return v.monitor.balloonSize(ctx) }

// ResizeDisk makes the data disk larger while the guest uses it.
func (v *vm) ResizeDisk(ctx context.Context, bytes int64) error {
	size, err := v.monitor.diskSize(ctx, dataID)
	if err != nil || size >= bytes {
		return err
	}
	return v.monitor.call(ctx, "block_resize", map[string]any{"device": dataID, "size": bytes}, nil)
}

// balloonSize is what the guest has left of its memory, in bytes.
func (m *monitor) balloonSize(ctx context.Context) (int64, error) {
	var b struct {
		Actual int64 `json:"actual"`
	}
	err := m.call(ctx, "query-balloon", nil, &b)
	return b.Actual, err
}

// diskSize is how large the guest sees a disk, in bytes; 0 where QEMU does not say.
func (m *monitor) diskSize(ctx context.Context, id string) (int64, error) {
	var devices []struct {
		Device   string `json:"device"`
		Inserted struct {
			Image struct {
				VirtualSize int64 `json:"virtual-size"`
			} `json:"image"`
		} `json:"inserted"`
	}
	if err := m.call(ctx, "query-block", nil, &devices); err != nil {
		return 0, err
	}
	for _, d := range devices {
		if d.Device == id {
			return d.Inserted.Image.VirtualSize, nil
		}
	}
	return 0, nil
}
