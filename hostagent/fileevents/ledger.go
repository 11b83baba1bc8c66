// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Ledger knows what the guest itself changes through the share, so that the host's events of it are not told to the guest as somebody else's. Names are
// counted: one creation of ours explains one event. For content and attributes the state counts, too: an event is ours only while the file is as we left it.
// So what somebody else does to the same file is told, even in the middle of our own work; only a write of the same size within the same tick of
// the file system's clock (4 ms on most Linux hosts) can hide behind one of ours. Methods are safe for concurrent use.
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
	// budget is how many raw events of a kind our own operations explain that have ended.
	budget [proto.FileRescan + 1]int
	// moves are targets of our moves from here, arrivals the number of our moves to here.
	moves    map[string]int
	arrivals int
	// foreign: somebody else's change was seen between our own operations, by its state.
	foreign [proto.FileRescan + 1]bool
	state   Stamp
	known   bool // state is what our last operation left
	gone    bool // our last operation took the name away
	last    time.Time
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

// Operation is a change that the guest asked for and that is being made.
type Operation struct {
	ledger *Ledger
	kind   proto.FileEventKind
	path   string
	to     string
	// End, if not 0, is where a write ends; it is to be set before Done. It tells a file that somebody else made longer meanwhile.
	End int64
	// size was the file's before.
	size  int64
	sized bool
}

// Begin notes that the guest is about to change a path: to create it (with all its ways: files, folders, links), modify, close (after opening it for
// writing), change its attributes, delete it, or move it to another. Done must follow.
func (l *Ledger) Begin(kind proto.FileEventKind, path, to string) *Operation {
	op := &Operation{ledger: l, kind: kind, path: path, to: to}
	var before Stamp
	var there bool
	content := ofContent(kind)
	if content {
		before, there = l.stat(path)
		op.size, op.sized = before.Size, there
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.record(path)
	if content && there && r.known && r.inflight == 0 {
		r.compare(before)
	}
	r.inflight++
	if kind == proto.FileMoved {
		l.record(to).inflight++
	}
	return op
}

// ofContent reports whether events of a kind are told apart by the file's state.
func ofContent(kind proto.FileEventKind) bool {
	return kind == proto.FileModified || kind == proto.FileClosed || kind == proto.FileAttributes
}

// compare notes what somebody else changed since our last operation.
func (r *record) compare(now Stamp) {
	if !now.sameContent(r.state) {
		r.foreign[proto.FileModified] = true
	}
	if now.Mode != r.state.Mode || now.UID != r.state.UID || now.GID != r.state.GID {
		r.foreign[proto.FileAttributes] = true
	}
}

// Done notes how the change went.
func (o *Operation) Done(err error) {
	l := o.ledger
	where := o.path
	if o.kind == proto.FileMoved {
		where = o.to
	}
	var after Stamp
	var there bool
	if err == nil && o.kind != proto.FileDeleted {
		after, there = l.stat(where)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.record(o.path)
	r.inflight--
	if o.kind == proto.FileMoved {
		l.record(o.to).inflight--
	}
	if err != nil {
		return
	}
	switch o.kind {
	case proto.FileMoved:
		if r.moves == nil {
			r.moves = map[string]int{}
		}
		r.moves[o.to]++
		r.gone, r.known = true, false
		r = l.record(o.to)
		r.arrivals++
	case proto.FileDeleted:
		r.budget[o.kind]++
		r.gone, r.known = true, false
		return
	default:
		r.budget[o.kind]++
	}
	r.gone = false
	r.state, r.known = after, there
	if o.End > 0 && o.sized && there && after.Size != max(o.End, o.size) {
		r.foreign[proto.FileModified] = true
	}
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

// judge says whose an event is that stands for a number of raw ones. With patient an operation that goes on is waited for.
func (l *Ledger) judge(e proto.FileEvent, raws int, patient bool) verdict {
	var now Stamp
	var there bool
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.files[e.Path]
	if e.Kind == proto.FileMoved && r == nil {
		r = l.files[e.To]
	}
	switch {
	case r == nil:
		return foreign
	case r.inflight > 0 && patient:
		return undecided
	}
	if ofContent(e.Kind) && !r.gone && r.known {
		l.mu.Unlock()
		now, there = l.stat(e.Path)
		l.mu.Lock()
	}
	switch e.Kind {
	case proto.FileMoved:
		return l.judgeMove(e)
	case proto.FileCreated:
		return l.judgeCreation(r)
	case proto.FileDeleted:
		return l.judgeDeletion(r)
	case proto.FileModified, proto.FileClosed, proto.FileAttributes:
		if r.inflight > 0 {
			return r.judgeMeanwhile(e.Kind, raws)
		}
		return r.judgeContent(e.Kind, raws, now, there)
	}
	return foreign
}

// left reports whether a file is in the state in which we left it.
func (l *Ledger) left(path string, now Stamp) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.files[path]
	return r != nil && r.known && now.sameContent(r.state) && now.sameAttributes(r.state)
}

// judgeMove looks for a move of ours. The lock is held.
func (l *Ledger) judgeMove(e proto.FileEvent) verdict {
	r := l.files[e.Path]
	if r == nil || r.moves[e.To] == 0 {
		return foreign
	}
	r.spend(e.To)
	if to := l.files[e.To]; to != nil && to.arrivals > 0 {
		to.arrivals--
	}
	return own
}

// spend uses up one move.
func (r *record) spend(to string) {
	r.moves[to]--
	if r.moves[to] == 0 {
		delete(r.moves, to)
	}
}

// judgeCreation also knows the second half of a move from a folder that is not watched. The lock is held.
func (l *Ledger) judgeCreation(r *record) verdict {
	switch {
	case r.budget[proto.FileCreated] > 0:
		r.budget[proto.FileCreated]--
	case r.arrivals > 0:
		r.arrivals--
	default:
		return foreign
	}
	return own
}

// judgeDeletion also knows the first half of a move to a folder that is not watched. The lock is held.
func (l *Ledger) judgeDeletion(r *record) verdict {
	if r.budget[proto.FileDeleted] > 0 {
		r.budget[proto.FileDeleted]--
		return own
	}
	if len(r.moves) == 0 {
		return foreign
	}
	for to := range r.moves { // which one makes no difference
		r.spend(to)
		break
	}
	return own
}

// judgeMeanwhile judges by number alone, while we go on changing the file: its state will be looked at with the last event.
func (r *record) judgeMeanwhile(kind proto.FileEventKind, raws int) verdict {
	if raws > r.budget[kind]+r.inflight {
		return foreign
	}
	r.budget[kind] -= raws // what is below 0 comes with the end of what goes on
	return own
}

// judgeContent compares the state with what we left.
func (r *record) judgeContent(kind proto.FileEventKind, raws int, now Stamp, there bool) verdict {
	left := r.budget[kind]
	r.budget[kind] = max(0, left-raws)
	switch {
	case r.foreign[kind]:
		r.foreign[kind] = false
		return foreign
	case r.gone: // of a file that we have taken away since
		if left > 0 {
			return own
		}
		return foreign
	case !r.known, left < raws, !there:
		return foreign
	case kind == proto.FileAttributes && !now.sameAttributes(r.state), kind != proto.FileAttributes && !now.sameContent(r.state):
		return foreign
	}
	return own
}
