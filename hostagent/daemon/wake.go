// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"time"
)

// pollWake compares the two clocks each second: the one that stands still while the host sleeps, and the wall's.
func pollWake(ctx context.Context, woken chan<- struct{}) {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticks.C:
			if slept(last, now) {
				signal(woken)
			}
			last = now
		}
	}
}

// slept says whether the wall's clock went on by much more between two looks than the other one did.
func slept(last, now time.Time) bool {
	return (now.Round(0).Sub(last.Round(0)) - now.Sub(last)).Abs() > 500*time.Millisecond
}

// signal wakes a receiver; one signal is enough until it is taken.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
