// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// clockEvery is how often the guest's clock is looked at, and with it whether the guest answers.
const clockEvery = 10 * time.Second

// silence is how long the guest may take to answer before that is a problem.
const silence = 30 * time.Second

// tolerance is how far the guest's clock may be off before it is set: setting it moves time for programs that are running.
const tolerance = 50 * time.Millisecond

// keepClock sets the guest's clock every now and then, and at once when the host or the VM has slept.
func (a *agent) keepClock(l *life) {
	woken := make(chan struct{}, 1)
	l.work.Go(func() { watchWake(l.ctx, woken) })
	var resumed <-chan struct{}
	if r, ok := l.vm.(interface{ Resumed() <-chan struct{} }); ok {
		resumed = r.Resumed()
	}
	ticks := time.NewTicker(clockEvery)
	defer ticks.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-ticks.C:
			if f := a.forwards.Load(); f != nil {
				f.retry()
			}
		case <-woken:
		case _, ok := <-resumed:
			if !ok {
				resumed = nil
			}
		case <-a.nudge:
		}
		a.tick(l.ctx)
	}
}

// tick looks at the clock once. An answer that took long means that the VM was paused meanwhile: then it is looked at again.
func (a *agent) tick(ctx context.Context) {
	for range 3 {
		began := time.Now().Round(0) // the wall's clock, which goes on while the host sleeps
		quick := a.look(ctx)
		if quick || time.Now().Round(0).Sub(began) < time.Second {
			return
		}
	}
}

// look sets the clock where it is off; quick tells whether the guest answered at once.
func (a *agent) look(ctx context.Context) (quick bool) {
	late := time.AfterFunc(silence, func() {
		if a.state.has("host-disk") {
			return // it says why
		}
		a.state.problem("silence", &hostagent.Problem{Code: "guest-silent", Text: "the machine does not answer: it is paused, or hangs", Hint: "`dev machine restart " + a.o.Machine + "` starts it anew"})
	})
	defer late.Stop()
	s, err := a.link.get(ctx)
	if err != nil {
		return true
	}
	took, err := a.pushClock(ctx, s.control)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Warn("the clock could not be set", "error", err)
		}
		return true // the link has gone; the next one sets the clock first
	}
	a.state.problem("silence", nil)
	return took < time.Second
}

// pushClock compares the guest's clock with this one and sets it where it is off by more than the tolerance, or than the measurement.
func (a *agent) pushClock(ctx context.Context, control *proto.Client) (took time.Duration, err error) {
	var info proto.Info
	began := time.Now()
	if err := control.Call(ctx, proto.MethodInfo, nil, &info); err != nil {
		return 0, err
	}
	took = time.Since(began)
	offset := info.Clock.Sub(began.Add(took / 2).Round(0))
	a.clockOffset.Store(int64(offset))
	if offset.Abs() <= max(tolerance, took) {
		return took, nil
	}
	if err := control.Call(ctx, proto.MethodSetTime, proto.SetTime{Time: time.Now().Round(0).Add(took / 2)}, nil); err != nil {
		return took, err
	}
	a.log.Info("the machine's clock was set", "offset", offset.String())
	return took, nil
}
