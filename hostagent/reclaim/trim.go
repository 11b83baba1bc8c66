// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"context"
	"log/slog"
	"time"
)

// When disks are trimmed.
const (
	// firstTrim is how long after the machine's start, trimEvery how often after that, whatever happens.
	firstTrim = 15 * time.Minute
	trimEvery = 24 * time.Hour
	// quiet is how long nothing may have been removed before what was removed is given back, and trimPause the least time between two trims.
	quiet     = time.Minute
	trimPause = 10 * time.Minute
	// busyPause is after how long a guest is asked again that was busy, or that failed.
	busyPause = 5 * time.Minute
)

// Trimmer has a guest give back what is free on its disk: some time after something was removed, and once a day. It never does while the guest is busy.
type Trimmer struct {
	// Trim gives back what is free and says how many bytes that may be.
	Trim func(ctx context.Context) (int64, error)
	// Busy says whether the guest has something better to do.
	Busy func(ctx context.Context) (bool, error)
	// Hold keeps the machine awake until release; ok is false where it sleeps.
	Hold func() (release func(), ok bool)
	Log  *slog.Logger

	freed chan struct{}
	plan  schedule
}

// NewTrimmer completes t. Its first trim is due some time after now, the start of the machine.
func NewTrimmer(t Trimmer, now time.Time) *Trimmer {
	t.freed = make(chan struct{}, 1)
	t.plan = schedule{due: now.Add(firstTrim), last: now.Add(firstTrim - trimEvery)}
	return &t
}

// Freed notes that something was removed from the disk. It does not wait.
func (t *Trimmer) Freed() {
	select {
	case t.freed <- struct{}{}:
	default: // one is noted already
	}
}

// Keep trims until ctx ends. It can be called again then, one call at a time: what is due stays due.
func (t *Trimmer) Keep(ctx context.Context) {
	timer := time.NewTimer(time.Until(t.plan.due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.freed:
			t.plan.freed(time.Now())
		case <-timer.C:
			t.plan.tried(time.Now(), t.try(ctx))
		}
		timer.Reset(time.Until(t.plan.due))
	}
}

// try trims if the guest has time for it.
func (t *Trimmer) try(ctx context.Context) (done bool) {
	release, ok := t.Hold()
	if !ok {
		return false
	}
	defer release()
	if busy, err := t.Busy(ctx); busy || err != nil {
		return false
	}
	bytes, err := t.Trim(ctx)
	if err != nil {
		if ctx.Err() == nil {
			t.Log.Warn("what is free on the machine's disk could not be given back", "error", err)
		}
		return false
	}
	t.Log.Info("gave back what is free on the machine's disk", "bytes", bytes)
	return true
}

// schedule is when the next trim is due.
type schedule struct{ due, last time.Time }

// freed brings the next one forward, as long as nothing else is removed, and later than the pause after the last one.
func (s *schedule) freed(now time.Time) {
	next := now.Add(quiet)
	if after := s.last.Add(trimPause); next.Before(after) {
		next = after
	}
	if daily := s.last.Add(trimEvery); next.After(daily) && daily.After(now) {
		next = daily
	}
	s.due = next
}

func (s *schedule) tried(now time.Time, done bool) {
	if !done {
		s.due = now.Add(busyPause)
		return
	}
	s.last, s.due = now, now.Add(trimEvery)
}
