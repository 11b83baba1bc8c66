// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// change is one event that waits to be told, standing for one or more of the system's.
type change struct {
	wire.Event
	first time.Time // when the first of them was read
}

// storm is the number of waiting events from which on names that came and went meanwhile are left out.
const storm = 1024

// queue keeps events in their order and folds those that say the same: changes of content, of attributes, and closings of one file are one each, as long
// as its name stands for the same file. The order of what is told of names never changes, so that a folder comes before what is in it, and a move
// means what it meant. The zero queue is empty; it is not safe for concurrent use.
type queue struct {
	list  []*change // nil: left out
	count int
	files map[string]*fileTail
	// epoch changes when a folder is moved: paths below it mean other files since.
	epoch int
}

// fileTail is what was last told of a path, since its name was made, removed or moved.
type fileTail struct {
	epoch   int
	kinds   [wire.Rescan + 1]int // index in list + 1 of the kind's last event
	created int                  // index in list + 1 of the name's creation, while it can be left out
}

// Fold returns a sequence of events without what would be told twice. It is what [Watcher.Next] does to the events of a batch.
func Fold(events []wire.Event) []wire.Event {
	var q queue
	for _, e := range events {
		q.add(e, time.Time{})
	}
	folded := make([]wire.Event, 0, q.count)
	for _, c := range q.take(q.count) {
		folded = append(folded, c.Event)
	}
	return folded
}

func (q *queue) add(e wire.Event, at time.Time) {
	tail := q.tail(e.Path)
	switch e.Kind {
	case wire.Modified, wire.Closed, wire.Attributes:
		if i := tail.kinds[e.Kind]; i > 0 && (e.Kind != wire.Closed || tail.kinds[wire.Modified] < i) {
			return
		}
		tail.kinds[e.Kind] = q.append(e, at)
	case wire.Created:
		*tail = fileTail{epoch: q.epoch}
		i := q.append(e, at)
		if !e.Dir {
			tail.created = i
		}
	case wire.Deleted:
		if tail.created > 0 && q.count > storm {
			q.omit(tail)
			delete(q.files, e.Path)
			return
		}
		*tail = fileTail{epoch: q.epoch}
		q.append(e, at)
	case wire.Moved:
		q.append(e, at)
		if e.Dir {
			q.epoch++
		}
		*tail = fileTail{epoch: q.epoch}
		*q.tail(e.To) = fileTail{epoch: q.epoch}
	default:
		q.append(e, at)
	}
}

// tail finds what was last told of a path.
func (q *queue) tail(path string) *fileTail {
	if q.files == nil {
		q.files = map[string]*fileTail{}
	}
	t := q.files[path]
	if t == nil {
		t = &fileTail{epoch: q.epoch}
		q.files[path] = t
	} else if t.epoch != q.epoch {
		*t = fileTail{epoch: q.epoch}
	}
	return t
}

func (q *queue) append(e wire.Event, at time.Time) int {
	q.list = append(q.list, &change{Event: e, first: at})
	q.count++
	return len(q.list)
}

// omit leaves out all that was told of a file since its creation.
func (q *queue) omit(t *fileTail) {
	for _, i := range append(t.kinds[:], t.created) {
		if i > 0 && q.list[i-1] != nil {
			q.list[i-1] = nil
			q.count--
		}
	}
}

// take removes the first n events, in order. What comes later is not folded into them.
func (q *queue) take(n int) []*change {
	taken := make([]*change, 0, min(n, q.count))
	i := 0
	for ; i < len(q.list) && len(taken) < n; i++ {
		if c := q.list[i]; c != nil {
			taken = append(taken, c)
		}
	}
	rest := q.list[i:]
	q.count -= len(taken)
	q.files = nil
	if q.count == 0 {
		q.list = nil
		return taken
	}
	q.list = make([]*change, 0, len(rest))
	for _, c := range rest {
		if c != nil {
			q.list = append(q.list, c)
		}
	}
	return taken
}

// putBack puts events that were taken in front again.
func (q *queue) putBack(held []*change) {
	if len(held) == 0 {
		return
	}
	q.list = append(held[:len(held):len(held)], q.list...)
	q.count += len(held)
	q.files = nil
}
