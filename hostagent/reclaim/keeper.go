// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Keeper gives the host the memory that a guest does not need, and the guest what it needs again.
type Keeper struct {
	VM hostagent.Ballooner
	// Total is what the guest was started with, in bytes, and CPUs how many processors it has.
	Total int64
	CPUs  int
	// Watch returns when the guest's programs wait for memory, or after a time. A *proto.Error says that this guest cannot tell.
	Watch func(ctx context.Context, wait time.Duration) (proto.Pressure, error)
	// Hold keeps the machine awake until release; ok is false where it sleeps.
	Hold func() (release func(), ok bool)
	// Short says that the host is short of memory.
	Short func() bool
	Log   *slog.Logger
}

// askWait is what a guest may take to answer beyond the time that it was asked to wait.
const askWait = time.Minute

// Keep works until ctx ends, or the guest turns out not to tell when memory is short: from such a one nothing is taken.
func (k *Keeper) Keep(ctx context.Context) {
	var r reclaimer
	plan := memoryPlan{rest: lookSoon}
	for pause(ctx, plan.rest) == nil {
		p, err := k.ask(ctx, plan.watch)
		if err == nil {
			plan, err = k.act(ctx, &r, p)
		}
		var refused *proto.Error
		switch {
		case err == nil:
		case errors.As(err, &refused):
			k.Log.Info("memory stays with the machine: its image does not tell when memory is short", "error", refused.Text)
			return
		default: // the link breaks, or the VM is busy: both come again
			k.Log.Debug("look at the machine's memory", "error", err)
			plan = memoryPlan{rest: lookSoon}
		}
	}
}

func (k *Keeper) ask(ctx context.Context, wait time.Duration) (proto.Pressure, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+askWait)
	defer cancel()
	return k.Watch(ctx, max(wait, time.Millisecond))
}

// act does what the plan says.
func (k *Keeper) act(ctx context.Context, r *reclaimer, p proto.Pressure) (memoryPlan, error) {
	release, ok := k.Hold()
	if !ok {
		return memoryPlan{rest: lookLate}, nil
	}
	defer release()
	has, err := k.VM.BalloonSize(ctx)
	if err != nil {
		return memoryPlan{}, err
	}
	has = min(has, k.Total)
	plan := r.plan(memoryView{now: time.Now(), total: k.Total, has: has, cpus: k.CPUs, guest: p.Memory, short: p.Short, tight: k.Short()})
	if plan.target == has {
		return plan, nil
	}
	k.Log.Debug("the machine's memory changes", "from", has, "to", plan.target, "available", p.Memory.Available, "short", p.Short)
	return plan, k.VM.Balloon(ctx, plan.target)
}

// HostShort says whether less than a twentieth of the host's memory is free, where that is known.
func HostShort() bool {
	available, total := hostMemory()
	return total > 0 && available < total/20
}

// pause waits a moment, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
