// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// at is a guest of 8 GiB that uses and has so many MiB.
func at(uses, has int64) memoryView {
	const total = 8192
	v := memoryView{now: time.Unix(1000, 0), total: total * mebibyte, has: has * mebibyte, cpus: 2}
	v.guest.Available = (has - uses) * mebibyte
	return v
}

func TestReclaimPlan(t *testing.T) {
	with := func(v memoryView, change func(*memoryView)) memoryView { change(&v); return v }
	short := func(v memoryView) memoryView { return with(v, func(v *memoryView) { v.short = true }) }
	busy := func(v memoryView) memoryView { return with(v, func(v *memoryView) { v.guest.Load = 1.2 }) }
	calm := reclaimer{calm: calmLooks}
	took := reclaimer{took: time.Unix(995, 0)}
	rest := func(d time.Duration) memoryPlan { return memoryPlan{rest: d} }
	watch := func(d time.Duration) memoryPlan { return memoryPlan{watch: d} }
	for name, c := range map[string]struct {
		r    reclaimer
		v    memoryView
		want int64 // MiB
		wait memoryPlan
	}{
		"the first calm look":               {reclaimer{}, at(300, 8192), 8192, rest(lookSoon)},
		"calm: one step":                    {calm, at(300, 8192), 7168, watch(lookSoon)},
		"calm: the last step":               {calm, at(300, 1000), 556, watch(lookSoon)},
		"large need, larger reserve":        {calm, at(4096, 5500), 5120, watch(lookSoon)},
		"nothing worth it":                  {calm, at(300, 600), 600, watch(lookLate)},
		"the host is short":                 {calm, with(at(300, 1000), func(v *memoryView) { v.tight = true }), 428, watch(lookSoon)},
		"busy":                              {calm, busy(at(300, 8192)), 8192, rest(lookLate)},
		"busy, with less":                   {calm, busy(at(300, 4096)), 4096, watch(lookLate)},
		"busy with our own work":            {calm, with(at(300, 8192), func(v *memoryView) { v.working = true }), 8192, rest(lookLate)},
		"programs wait":                     {calm, short(at(300, 600)), 8192, rest(lookLate)},
		"programs wait for what was taken":  {took, short(at(300, 600)), 600, memoryPlan{rest: breath, watch: lookSoon}},
		"a container at its limit":          {calm, short(at(300, 4096)), 4096, memoryPlan{rest: breath, watch: lookSoon}},
		"programs wait, with all of it":     {calm, short(at(8000, 8192)), 8192, rest(lookLate)},
		"missed it a minute ago":            {reclaimer{calm: 5, sore: time.Unix(1060, 0)}, at(300, 8192), 8192, rest(lookLate)},
		"the reserve is used":               {calm, at(500, 600), 1012, watch(lookSoon)},
		"the reserve is used, busy":         {calm, busy(at(500, 600)), 1012, watch(lookSoon)},
		"more used than there is":           {calm, at(8192, 8192), 8192, rest(lookLate)},
		"the reserve would exceed it":       {calm, at(7900, 7950), 8192, rest(lookSoon)},
		"a small guest has nothing to give": {calm, memoryView{total: 512 * mebibyte, has: 512 * mebibyte, guest: proto.Memory{Available: 250 * mebibyte}}, 512, rest(lookLate)},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := c.r.plan(c.v), c.wait
			if want.target = c.want * mebibyte; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestReclaimNeverTakesTooMuch plays guests at random: what is left is never less than what is used and the reserve, and never more than all.
func TestReclaimNeverTakesTooMuch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		v := memoryView{now: time.Unix(0, 0), total: (512 + random.Int64N(65536)) * mebibyte, cpus: 1 + random.IntN(8)}
		v.has = v.total
		uses := random.Int64N(v.total)
		var r reclaimer
		for range 100 {
			if random.IntN(10) == 0 {
				uses = random.Int64N(v.has)
			}
			v.short, v.tight, v.guest.Load = random.IntN(20) == 0, random.IntN(4) == 0, random.Float64()*2
			v.guest.Available = max(v.has-uses, 0)
			v.now = v.now.Add(time.Minute)
			before := v.has
			v.has = r.plan(v).target
			if v.has > v.total || v.has < before && v.has < min(uses+tightReserve, v.total) {
				t.Fatalf("a guest that uses %d of %d MiB was left %d, from %d", uses/mebibyte, v.total/mebibyte, v.has/mebibyte, before/mebibyte)
			}
		}
	}
}

// TestReclaimSettles has an idle guest come to rest near its need.
func TestReclaimSettles(t *testing.T) {
	v := at(400, 8192)
	var r reclaimer
	for range 20 {
		p := r.plan(v)
		v.has, v.now = p.target, v.now.Add(p.rest+p.watch)
		v.guest.Available = v.has - 400*mebibyte
	}
	if v.has != 656*mebibyte {
		t.Errorf("it keeps %d MiB", v.has/mebibyte)
	}
	if p := r.plan(v); p.target != v.has || p.watch != lookLate {
		t.Errorf("it does not come to rest: %+v", p)
	}
}

// fakeBalloon is a VM whose guest uses some memory.
type fakeBalloon struct {
	has, uses int64
	asked     []int64
	err       error
}

func (b *fakeBalloon) Balloon(_ context.Context, bytes int64) error {
	b.asked = append(b.asked, bytes)
	b.has = bytes
	return b.err
}

func (b *fakeBalloon) BalloonSize(context.Context) (int64, error) { return b.has, nil }

// TestMemoryKeeper has a guest fall idle, miss memory, and end.
func TestMemoryKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBalloon{has: 4096 * mebibyte, uses: 300 * mebibyte}
		looks := 0
		ctx, cancel := context.WithCancel(t.Context())
		k := &Keeper{
			VM: b, Total: b.has, CPUs: 2, Log: slog.New(slog.DiscardHandler), Short: func() bool { return false },
			Hold: func() (func(), bool) { return func() {}, looks != 3 },
			Watch: func(ctx context.Context, wait time.Duration) (proto.Pressure, error) {
				looks++
				switch looks {
				case 4:
					return proto.Pressure{}, errors.New("the link broke")
				case 20:
					return proto.Pressure{Short: true, Memory: proto.Memory{Available: b.has - b.uses}}, nil
				case 21:
					cancel()
					return proto.Pressure{}, ctx.Err()
				}
				return proto.Pressure{Memory: proto.Memory{Available: b.has - b.uses}}, pause(ctx, wait)
			},
		}
		k.Keep(ctx)
		last, least := b.asked[len(b.asked)-1], int64(0)
		for _, n := range b.asked {
			if least == 0 || n < least {
				least = n
			}
		}
		if least != 556*mebibyte || last != 4096*mebibyte {
			t.Errorf("it was left %d MiB, and at last %d", least/mebibyte, last/mebibyte)
		}
	})
}

// TestMemoryKeeperOldImage takes nothing from a guest that does not tell.
func TestMemoryKeeperOldImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBalloon{has: 4096 * mebibyte}
		k := &Keeper{VM: b, Total: b.has, Log: slog.New(slog.DiscardHandler), Watch: func(context.Context, time.Duration) (proto.Pressure, error) {
			return proto.Pressure{}, &proto.Error{Code: proto.CodeUnknown, Text: "unknown"}
		}}
		k.Keep(t.Context())
		if len(b.asked) != 0 {
			t.Errorf("it was asked for %v", b.asked)
		}
	})
}

// TestReclaimEcho: a guest that misses what has just been taken is left alone for a moment; if it still misses it then, it gets all.
func TestReclaimEcho(t *testing.T) {
	v := at(300, 700)
	v.short = true
	r := reclaimer{took: v.now.Add(-time.Second)}
	if p := r.plan(v); p.target != v.has {
		t.Errorf("at once: %+v", p)
	}
	v.now = v.now.Add(time.Second)
	if p := r.plan(v); p.target != v.total {
		t.Errorf("again: %+v", p)
	}
}
