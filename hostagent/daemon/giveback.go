// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/reclaim"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// giveBack has memory and disk that the guest does not need given back to the host for as long as a life lasts.
func (a *agent) giveBack(_ context.Context, l *life) error {
	switch vm, ok := l.vm.(hostagent.Ballooner); {
	case !ok:
	case !a.o.ReclaimMemory:
		l.work.Go(func() { a.returnMemory(l.ctx, vm) })
	default:
		k := &reclaim.Keeper{
			VM: vm, Total: a.o.MemoryBytes, CPUs: a.o.CPUs, Watch: a.watchMemory, Hold: a.holdIfAwake, Short: reclaim.HostShort, Log: a.log,
		}
		l.work.Go(func() { k.Keep(l.ctx) })
	}
	if a.trimmer == nil {
		a.trimmer = reclaim.NewTrimmer(reclaim.Trimmer{Trim: a.trim, Busy: a.guestBusy, Hold: a.holdIfAwake, Log: a.log}, time.Now())
	}
	l.work.Go(func() { a.trimmer.Keep(l.ctx) })
	return nil
}

// returnMemory gives a guest all of its memory again that was saved when some of it was the host's.
func (a *agent) returnMemory(ctx context.Context, vm hostagent.Ballooner) {
	has, err := vm.BalloonSize(ctx)
	if err == nil && has < a.o.MemoryBytes {
		err = vm.Balloon(ctx, a.o.MemoryBytes)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Debug("give the machine its memory again", "error", err)
	}
}

// watchMemory waits until programs in the guest miss memory, or the time is over.
func (a *agent) watchMemory(ctx context.Context, wait time.Duration) (p proto.Pressure, err error) {
	err = a.link.call(ctx, proto.MethodPressure, proto.PressureRequest{Wait: wait}, &p)
	return p, err
}

// trimWait bounds one trim: a large disk on a slow host takes minutes.
const trimWait = 30 * time.Minute

func (a *agent) trim(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, trimWait)
	defer cancel()
	var t proto.Trim
	err := a.link.call(ctx, proto.MethodTrim, nil, &t)
	return t.Bytes, err
}

// busyLoad is the average of waiting processes, for each processor, above which the guest has something better to do.
const busyLoad = 0.5

func (a *agent) guestBusy(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	var m proto.Memory
	err := a.link.call(ctx, proto.MethodMemory, proto.MemoryRequest{}, &m)
	return m.Load > busyLoad*float64(max(a.o.CPUs, 1)), err
}

// growWait bounds growing the data disk.
const growWait = 5 * time.Minute

// serveGrowDisk makes the data disk larger while the VM runs. 409: that needs a start.
func (a *agent) serveGrowDisk(w http.ResponseWriter, r *http.Request) {
	bytes, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil || bytes <= 0 || bytes%512 != 0 {
		http.Error(w, "the size is not a number of bytes in whole sectors", http.StatusBadRequest)
		return
	}
	disk, err := a.growDisk(r.Context(), bytes)
	var old *proto.Error
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.As(err, &old) && old.Code == proto.CodeUnknown:
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		a.log.Error("grow the data disk", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		a.log.Info("the data disk has grown", "bytes", bytes)
		answer(w, disk)
	}
}

// growDisk grows the disk and then the file system on it. Cut off in between, the next boot does the rest.
func (a *agent) growDisk(ctx context.Context, bytes int64) (disk proto.Disk, err error) {
	ctx, cancel := context.WithTimeout(ctx, growWait)
	defer cancel()
	release, err := a.awake(ctx)
	if err != nil {
		return disk, err
	}
	defer release()
	vm, ok := a.vm().(hostagent.Resizer)
	if !ok {
		return disk, fmt.Errorf("grow the disk of a machine that runs: %w", errors.ErrUnsupported)
	}
	if err := vm.ResizeDisk(ctx, bytes); err != nil {
		return disk, err
	}
	err = a.link.call(ctx, proto.MethodGrow, proto.Grow{Bytes: bytes}, &disk)
	return disk, err
}
