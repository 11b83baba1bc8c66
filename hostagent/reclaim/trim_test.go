// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package reclaim

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrimmer plays two days of a machine: when it was trimmed, in minutes since its start.
func TestTrimmer(t *testing.T) {
	const day = 24 * 60
	for name, c := range map[string]struct {
		freed []int // minutes at which something was removed
		busy  func(minute int) bool
		fails int
		want  []int
	}{
		"nothing happens":        {want: []int{15, 15 + day}},
		"something is removed":   {freed: []int{100}, want: []int{15, 101, 101 + day}},
		"much is removed":        {freed: []int{100, 100, 100}, want: []int{15, 101, 101 + day}},
		"again and again":        {freed: []int{100, 105, 106}, want: []int{15, 101, 111, 111 + day}},
		"early":                  {freed: []int{1}, want: []int{2, 2 + day}},
		"busy for an hour":       {busy: func(m int) bool { return m < 60 }, want: []int{60, 60 + day}},
		"it fails at first":      {fails: 2, want: []int{15, 20, 25, 25 + day}},
		"removed while all busy": {freed: []int{100}, busy: func(m int) bool { return m >= 100 && m < 130 }, want: []int{15, 131, 131 + day}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				minute := func() int { return int(time.Since(start) / time.Minute) }
				var got []int
				ctx, cancel := context.WithTimeout(t.Context(), 2*24*time.Hour)
				defer cancel()
				trimmer := NewTrimmer(Trimmer{
					Log: slog.New(slog.DiscardHandler), Hold: func() (func(), bool) { return func() {}, true },
					Busy: func(context.Context) (bool, error) { return c.busy != nil && c.busy(minute()), nil },
					Trim: func(context.Context) (int64, error) {
						if got = append(got, minute()); c.fails > 0 {
							c.fails--
							return 0, errors.New("no luck")
						}
						return 1, nil
					},
				}, start)
				go func() {
					for _, m := range c.freed {
						if pause(ctx, time.Until(start.Add(time.Duration(m)*time.Minute))) == nil {
							trimmer.Freed()
						}
					}
				}()
				trimmer.Keep(ctx)
				if !slices.Equal(got, c.want) {
					t.Errorf("trimmed at minutes %v, want %v", got, c.want)
				}
			})
		})
	}
}

// TestTrimmerSleeps: a machine that sleeps is left alone, and what is due stays due.
func TestTrimmerSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asleep, trims := true, 0
		trimmer := NewTrimmer(Trimmer{
			Log: slog.New(slog.DiscardHandler), Hold: func() (func(), bool) { return func() {}, !asleep },
			Busy: func(context.Context) (bool, error) { return false, nil },
			Trim: func(context.Context) (int64, error) { trims++; return 0, nil },
		}, time.Now())
		for range 2 { // two times awake, the first one too short
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			trimmer.Keep(ctx)
			cancel()
			asleep = false
		}
		if trims != 1 {
			t.Errorf("trimmed %d times", trims)
		}
	})
}
