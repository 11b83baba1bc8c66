// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"errors"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Events tell what others than the guest change in the folder.
type Events interface {
	// Next waits for changes and returns them in order. It is called by one goroutine at a time.
	Next(ctx context.Context) ([]wire.Event, error)
}

// feed hands events to the guest in numbered batches, one when the last has been replayed: while the guest is busy, more are folded here.
type feed struct {
	source Events
	turn   chan struct{} // holds one token for who uses the fields below
	number uint64        // of last
	last   []wire.Event
	rest   []wire.Event // taken from the source, not sent yet
}

const (
	// maxEvents and maxEventBytes bound a batch, and eventWait how long one may take: an answer without any is sent then.
	maxEvents     = 1024
	maxEventBytes = wire.MaxFrame / 2
	eventWait     = 5 * time.Minute
)

func newFeed(source Events) *feed {
	f := &feed{source: source, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	return f
}

// next returns the batch after a number: the last one again if it did not arrive.
func (f *feed) next(ctx context.Context, after uint64) (uint64, []wire.Event, error) {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	defer func() { f.turn <- struct{}{} }()
	if after+1 == f.number {
		return f.number, f.last, nil
	}
	if len(f.rest) == 0 {
		events, err := f.wait(ctx)
		if err != nil {
			return 0, nil, err
		}
		f.rest = events
	}
	n := 0
	for size := 0; n < len(f.rest) && n < maxEvents && size < maxEventBytes; n++ {
		size += len(f.rest[n].Path) + len(f.rest[n].To)
	}
	f.last, f.rest = f.rest[:n:n], f.rest[n:]
	f.number = max(f.number, after) + 1 // a guest of an earlier life of ours may be ahead
	return f.number, f.last, nil
}

// wait returns no events after a while, so that the guest sees that somebody is there.
func (f *feed) wait(ctx context.Context) ([]wire.Event, error) {
	limited, cancel := context.WithTimeout(ctx, eventWait)
	defer cancel()
	events, err := f.source.Next(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return events, err
}

// events answers an OpEvents.
func (s *Server) events(ctx context.Context, r *wire.Request) wire.Response {
	if s.feed == nil {
		return wire.Response{ID: r.ID, Errno: wire.ENOSYS}
	}
	n, events, err := s.feed.next(ctx, r.Offset)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("follow a share's file events", "error", err)
		}
		return wire.Response{ID: r.ID, Errno: wire.EIO}
	}
	return wire.Response{ID: r.ID, Value: n, Data: wire.AppendEvents(nil, events)}
}
