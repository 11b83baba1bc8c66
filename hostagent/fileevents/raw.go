// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// raw is what a system says, with paths below the root.
type raw struct {
	wire.Event
	at time.Time
	// cookie, if not 0, makes this half of a move: FileDeleted is the part that went, FileCreated the part that came.
	cookie uint64
	// handle is the handle of the folder that moved, at the time.
	handle int32
	// lost: events are missing from here on.
	lost bool
}

// source is a system's way to watch. read is called by one goroutine; add and remove by any.
type source interface {
	// add watches a folder. It reports its handle; systems that watch trees return 0.
	add(path string) (handle int32, err error)
	// remove ends the watching of folders that are of no interest any more.
	remove(handles []int32)
	// read waits for events, until close. With wait above 0 it returns none after that time.
	read(wait time.Duration) ([]raw, error)
	close() error
}

// The two halves of a move follow each other closely, but something else may come between.
const (
	pairWait = 10 * time.Millisecond
	pairSpan = 64 // events
)

// pairer makes moves of their halves. A half whose other half does not come is a deletion or a creation: something left the folders that are watched,
// or came into them.
type pairer struct {
	held []raw
}

// feed takes events in their order and returns those that are settled.
func (p *pairer) feed(events []raw) []raw {
	for _, e := range events {
		if e.cookie == 0 || e.Kind != wire.Created || !p.marry(e) {
			p.held = append(p.held, e)
		}
	}
	return p.release(time.Time{})
}

// marry finds the half that went for the one that came.
func (p *pairer) marry(came raw) bool {
	for i := range p.held {
		went := &p.held[i]
		if went.cookie == came.cookie && went.Kind == wire.Deleted {
			went.Kind, went.To, went.cookie = wire.Moved, came.Path, 0
			return true
		}
	}
	return false
}

// release returns what is settled: all events before the first half that may still find its other half. Halves that are older than now less pairWait
// may not; a zero now leaves it to the number of events behind them.
func (p *pairer) release(now time.Time) []raw {
	n := 0
	for ; n < len(p.held); n++ {
		e := &p.held[n]
		waits := e.cookie != 0 && e.Kind == wire.Deleted && len(p.held)-n <= pairSpan && (now.IsZero() || now.Sub(e.at) < pairWait)
		if waits {
			break
		}
	}
	out := p.held[:n:n]
	p.held = p.held[n:]
	return out
}

// origin is where the half of a move came from that is held, or among events that are not fed yet; "" if there is none.
func (p *pairer) origin(unfed []raw, cookie uint64) string {
	for _, list := range [][]raw{unfed, p.held} {
		for _, e := range list {
			if e.cookie == cookie && e.Kind == wire.Deleted {
				return e.Path
			}
		}
	}
	return ""
}

// waiting reports whether a half is held.
func (p *pairer) waiting() bool { return len(p.held) > 0 }
