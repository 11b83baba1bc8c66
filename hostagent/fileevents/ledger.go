// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Ledger knows what the guest itself changes through the share, so that the host's events of it are not told to the guest as somebody else's. Names are
// counted: one creation of ours explains one event. For content and attributes the state counts: an event is ours while the file is as we left it. So
// what somebody else does to the same file is told, even in the middle of our own work; only a write of the same size within the same tick of the file
// system's clock (4 ms on Linux before 6.13) can hide behind one of ours. Methods are safe for concurrent use.
type Ledger struct {
	stat func(path string) (Stamp, bool)
	now  func() time.Time

	mu    sync.Mutex
	files map[string]*record
	sweep int // number of files at which old ones are looked for
}

// record is what we did to a path lately.
type record struct {
	inflight int
	// created, deleted and arrived count operations of ours of which no event has been seen yet; moves do for each target of a move from here.
	created, deleted, arrived int
	moves                     map[string]int
	// modified and attributes: somebody else's change was seen between our own operations, by the state.
	modified, attributes bool
	state                Stamp
	told                 Stamp // the state in which somebody else left it, when that was told last
	known                bool  // state is what our last operation left
	gone                 bool  // our last operation took the name away
	last                 time.Time
}

// NewLedger returns an empty ledger. stat tells the state of a path below the share, without following a symbolic link.
func NewLedger(stat func(path string) (Stamp, bool)) *Ledger {
	return &Ledger{stat: stat, now: time.Now, files: map[string]*record{}, sweep: minSweep}
}

// Records are kept for as long as an event may need to come, and looked through only when they are many.
const (
	keepRecord = 5 * time.Second
	minSweep   = 1024
)

// effect is what an operation does to a name.
type effect int

const (
	changes effect = iota // the file of the name, or, for a copy or a link, of the second name
	creates
	deletes
	moves
	nothing
)

func effectOf(op wire.Op) effect {
	switch op {
	case wire.OpCreate, wire.OpMknod, wire.OpMkdir, wire.OpSymlink, wire.OpLink:
		return creates
	case wire.OpUnlink, wire.OpRmdir:
		return deletes
	case wire.OpRename:
		return moves
	case wire.OpSetattr, wire.OpWrite, wire.OpFallocate, wire.OpCopy, wire.OpSetxattr, wire.OpRemovexattr:
		return changes
	}
	return nothing
}

// Begin notes that the guest's operation at a path, with a second one for renames, links and copies, is about to be carried out. The function it
// returns must be called with what came of it.
func (l *Ledger) Begin(op wire.Op, path, to string) (done func(err error, now wire.Attr)) {
	does := effectOf(op)
	if does == nothing {
		return func(error, wire.Attr) {}
	}
	if op == wire.OpCopy {
		path, to = to, ""
	}
	var before Stamp
	var there bool
	if does == changes {
		before, there = l.stat(path)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.record(path)
	if there && r.known && r.inflight == 0 && before != r.told {
		r.compare(before)
	}
	r.inflight++
	if to != "" {
		l.record(to).inflight++
	}
	return func(err error, _ wire.Attr) { l.end(does, path, to, err) }
}

// compare notes what somebody else changed since our last operation.
func (r *record) compare(now Stamp) {
	r.modified = r.modified || !now.sameContent(r.state)
	r.attributes = r.attributes || now.Mode != r.state.Mode || now.UID != r.state.UID || now.GID != r.state.GID
}

// end notes how an operation went.
func (l *Ledger) end(does effect, path, to string, err error) {
	state, there := l.stat(path)
	var toState Stamp
	var toThere bool
	if to != "" {
		toState, toThere = l.stat(to)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r, other := l.record(path), &record{}
	r.inflight--
	if to != "" {
		other = l.record(to)
		other.inflight--
	}
	if err != nil {
		return
	}
	switch does {
	case creates:
		r.created++
	case deletes:
		r.deleted++
	case moves:
		r.moveTo(to)
		other.arrived++
		if there { // the two were exchanged
			other.moveTo(path)
			r.arrived++
		}
	default:
	}
	r.left(state, there)
	other.left(toState, toThere)
}

func (r *record) moveTo(to string) {
	if r.moves == nil {
		r.moves = map[string]int{}
	}
	r.moves[to]++
}

// left notes the state in which an operation of ours left a path.
func (r *record) left(s Stamp, there bool) {
	r.state, r.known, r.gone = s, there, !there
}

// record finds or makes a path's record and says that it is in use. The lock is held.
func (l *Ledger) record(path string) *record {
	r := l.files[path]
	if r == nil {
		if len(l.files) >= l.sweep {
			l.forget(l.now().Add(-keepRecord))
			l.sweep = max(minSweep, 2*len(l.files))
		}
		r = &record{}
		l.files[path] = r
	}
	r.last = l.now()
	return r
}

// forget drops what was not in use since then. The lock is held.
func (l *Ledger) forget(since time.Time) {
	for path, r := range l.files {
		if r.inflight == 0 && r.last.Before(since) {
			delete(l.files, path)
		}
	}
}

// verdict says whose an event is.
type verdict int

const (
	foreign verdict = iota
	own
	undecided // an operation of ours on the path has not ended
)

// judge says whose an event is. With patient an operation that goes on is waited for.
func (l *Ledger) judge(e wire.Event, patient bool) verdict {
	l.mu.Lock()
	r, other := l.fresh(e.Path), l.fresh(e.To)
	busy := r != nil && r.inflight > 0 || e.To != "" && other != nil && other.inflight > 0
	l.mu.Unlock()
	if r == nil || busy && patient {
		if busy {
			return undecided
		}
		l.disown(e)
		return foreign
	}
	now, there := l.stat(e.Path)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.explains(e, r, now, there) {
		return own
	}
	r.told = now
	l.drop(e)
	return foreign
}

// fresh finds a record that is not too old to explain an event. The lock is held.
func (l *Ledger) fresh(path string) *record {
	r := l.files[path]
	if r != nil && r.inflight == 0 && l.now().Sub(r.last) > keepRecord {
		delete(l.files, path)
		return nil
	}
	return r
}

// disown forgets what can explain no event any more, since somebody else did something to the name.
func (l *Ledger) disown(e wire.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(e)
}

// drop does it with the lock held.
func (l *Ledger) drop(e wire.Event) {
	if e.Kind != wire.Deleted && e.Kind != wire.Moved {
		return
	}
	for _, path := range []string{e.Path, e.To} {
		if r := l.files[path]; r != nil && r.inflight == 0 {
			delete(l.files, path)
		}
	}
}

// explains reports whether an operation of ours explains an event, which it then does no more. The lock is held.
func (l *Ledger) explains(e wire.Event, r *record, now Stamp, there bool) bool {
	switch e.Kind {
	case wire.Created: // or the second half of a move from a folder that is not watched
		replaced := r.known && there && now.Inode != r.state.Inode
		return !replaced && (use(&r.created) || use(&r.arrived))
	case wire.Deleted: // or the first half of a move to one
		return use(&r.deleted) || r.useMove(anyMove(r.moves))
	case wire.Moved:
		if !r.useMove(e.To) {
			return false
		}
		if to := l.files[e.To]; to != nil {
			use(&to.arrived)
		}
		return true
	case wire.Modified, wire.Closed:
		return r.ours(&r.modified, there, now.sameContent(r.state))
	case wire.Attributes:
		return r.ours(&r.attributes, there, now.sameAttributes(r.state))
	}
	return false
}

// use takes one from a count, if there is one.
func use(n *int) bool {
	if *n == 0 {
		return false
	}
	*n--
	return true
}

func anyMove(moves map[string]int) string {
	for to := range moves {
		return to
	}
	return ""
}

func (r *record) useMove(to string) bool {
	n := r.moves[to]
	if n == 0 {
		return false
	}
	if r.moves[to] = n - 1; n == 1 {
		delete(r.moves, to)
	}
	return true
}

// ours reports whether a change of a file is ours, by its state.
func (r *record) ours(foreign *bool, there, same bool) bool {
	switch {
	case *foreign:
		*foreign = false
		return false
	case r.gone: // of a file that we have taken away since
		return !there
	case r.inflight > 0: // we go on changing it: the state counts with the last event
		return true
	}
	return r.known && there && same
}

// asLeft reports whether a file is in the state in which we left it.
func (l *Ledger) asLeft(path string, now Stamp) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.files[path]
	return r != nil && r.known && now.sameContent(r.state) && now.sameAttributes(r.state)
}
