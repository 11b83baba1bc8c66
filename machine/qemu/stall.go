// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/seed71221737/dev/hostagent"
)

var _ hostagent.Staller = (*vm)(nil)

// Stalled tells why QEMU has stopped the guest by itself.
func (v *vm) Stalled() <-chan error { return v.stalled }

// Stands asks QEMU whether it has stopped the guest as a disk failed (qapi/run-state.json).
func (v *vm) Stands(ctx context.Context) (bool, error) {
	state, err := v.monitor.status(ctx)
	return state == "io-error", err
}

// Continue lets the guest run on. QEMU repeats what it could not write, and stops again if that fails again.
func (v *vm) Continue(ctx context.Context) error { return v.monitor.call(ctx, "cont", nil, nil) }

// stall notes an error of a disk that has stopped the guest: on a host without room, QEMU's default is to wait rather than to tell the guest of a broken disk.
func (v *vm) stall(data json.RawMessage) {
	err := stallOf(data)
	if err == nil {
		return
	}
	select {
	case v.stalled <- err:
	default: // the last one has not been looked at yet
	}
}

// stallOf reads QEMU's event BLOCK_IO_ERROR (qapi/block-core.json); nil: the guest has been told and goes on.
func stallOf(data json.RawMessage) error {
	var e struct {
		Action, Operation, Reason string
		NoSpace                   bool `json:"nospace"`
	}
	if json.Unmarshal(data, &e) != nil {
		return nil //nolint:nilerr // not an event of this kind
	}
	switch {
	case e.Action != "stop":
		return nil
	case e.NoSpace:
		return errors.New("its disk is full")
	}
	return fmt.Errorf("%s: %s", e.Operation, e.Reason)
}
