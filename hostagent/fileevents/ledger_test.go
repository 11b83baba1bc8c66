// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// disk is a file system for the ledger, on which every change is at a later time.
type disk struct {
	files map[string]Stamp
	clock time.Time
	inode uint64
}

func newDisk() *disk { return &disk{files: map[string]Stamp{}, clock: time.Unix(1, 0)} }

func (d *disk) stat(path string) (Stamp, bool) {
	s, ok := d.files[path]
	return s, ok
}

func (d *disk) tick() time.Time {
	d.clock = d.clock.Add(time.Nanosecond)
	return d.clock
}

// do carries an operation out and returns the events that it makes.
func (d *disk) do(op wire.Op, path, to string) ([]wire.Event, error) {
	s, there := d.files[path]
	now := d.tick()
	switch op {
	case wire.OpCreate:
		if there {
			return nil, errors.New("it exists")
		}
		d.inode++
		d.files[path] = Stamp{Inode: d.inode, Mode: 0o644, Modified: now, Changed: now}
		return []wire.Event{{Kind: wire.Created, Path: path}}, nil
	case wire.OpWrite, wire.OpSetattr:
		if !there {
			return nil, errors.New("it is not there")
		}
		s.Changed = now
		kind := wire.Attributes
		if op == wire.OpWrite {
			s.Modified, kind = now, wire.Modified
		}
		d.files[path] = s
		return []wire.Event{{Kind: kind, Path: path}}, nil
	case wire.OpUnlink:
		if !there {
			return nil, errors.New("it is not there")
		}
		delete(d.files, path)
		return []wire.Event{{Kind: wire.Deleted, Path: path}}, nil
	case wire.OpRename:
		if !there || path == to {
			return nil, errors.New("it is not there")
		}
		s.Changed = now
		delete(d.files, path)
		d.files[to] = s
		return []wire.Event{{Kind: wire.Moved, Path: path, To: to}}, nil
	}
	return nil, errors.New("no such operation")
}

var ops = []wire.Op{wire.OpCreate, wire.OpWrite, wire.OpSetattr, wire.OpUnlink, wire.OpRename}

// While events are judged as they come, each is told as who made it made it, whatever the guest and others do in turn.
func TestLedgerTellsApart(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		d := newDisk()
		l := NewLedger(d.stat)
		var log []string
		for range 60 {
			op, path, to := ops[random.IntN(len(ops))], "f"+strconv.Itoa(random.IntN(3)), ""
			if op == wire.OpRename {
				to = "f" + strconv.Itoa(random.IntN(3))
			}
			guest := random.IntN(2) == 0
			var made []wire.Event
			var err error
			if guest {
				done := l.Begin(op, path, to)
				made, err = d.do(op, path, to)
				done(err, wire.Attr{})
			} else {
				made, _ = d.do(op, path, to)
			}
			for _, e := range made {
				log = append(log, e.String()+map[bool]string{true: " by the guest", false: " by another"}[guest])
				if got := l.judge(e, true); (got == own) != guest || got == undecided {
					t.Fatalf("seed %d: judged %d: %q", seed, got, log)
				}
			}
		}
	}
}

// When events come late and folded, in any mixture, whatever another changed last is told, and if only the guest changed files nothing is.
func TestLedgerRaces(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 2))
		d := newDisk()
		l := NewLedger(d.stat)
		var q queue
		others := seed%2 == 0
		lastByOther := map[string]bool{}
		for i := range 5 {
			_, _ = d.do(wire.OpCreate, "f"+strconv.Itoa(i), "")
		}
		for range 40 {
			path := "f" + strconv.Itoa(random.IntN(5))
			guest := !others || random.IntN(3) > 0
			var made []wire.Event
			if guest {
				done := l.Begin(wire.OpWrite, path, "")
				var err error
				made, err = d.do(wire.OpWrite, path, "")
				done(err, wire.Attr{})
			} else {
				made, _ = d.do(wire.OpWrite, path, "")
			}
			lastByOther[path] = !guest
			for _, e := range made {
				q.add(e, time.Time{})
			}
		}
		told := map[string]bool{}
		for _, c := range q.take(100) {
			told[c.Path] = l.judge(c.Event, true) == foreign
		}
		for path, foreign := range lastByOther {
			if foreign && !told[path] {
				t.Errorf("seed %d: the last change of %q, by another, is not told", seed, path)
			}
		}
		for path, foreign := range told {
			if foreign && !others {
				t.Errorf("seed %d: a change of the guest's to %q is told", seed, path)
			}
		}
	}
}

func TestLedgerWaits(t *testing.T) {
	d := newDisk()
	l := NewLedger(d.stat)
	done := l.Begin(wire.OpCreate, "a", "")
	created, _ := d.do(wire.OpCreate, "a", "")
	if got := l.judge(created[0], true); got != undecided {
		t.Errorf("an event of an operation that goes on: %d", got)
	}
	done(nil, wire.Attr{})
	if got := l.judge(created[0], true); got != own {
		t.Errorf("after it: %d", got)
	}
	done = l.Begin(wire.OpCreate, "b", "")
	created, _ = d.do(wire.OpCreate, "b", "") // by another: ours fails
	done(errors.New("it exists"), wire.Attr{})
	if got := l.judge(created[0], true); got != foreign {
		t.Errorf("an event of another, after an operation that failed: %d", got)
	}
}

// What we did long ago explains nothing.
func TestLedgerForgets(t *testing.T) {
	d := newDisk()
	l := NewLedger(d.stat)
	now := time.Now()
	l.now = func() time.Time { return now }
	for i := range 3 * minSweep {
		l.Begin(wire.OpUnlink, strconv.Itoa(i), "")(nil, wire.Attr{})
		now = now.Add(keepRecord / 100)
	}
	if len(l.files) > minSweep+1 {
		t.Errorf("%d records are kept", len(l.files))
	}
	if l.judge(wire.Event{Kind: wire.Deleted, Path: "0"}, true) != foreign {
		t.Error("an operation of long ago explains an event")
	}
}

// Closings are told of files that others have changed.
func TestOpenFiles(t *testing.T) {
	var o openFiles
	for _, c := range []struct {
		line string
		want bool
	}{
		{"closed a", false}, {"modified a", true}, {"closed a", true}, {"closed a", false}, {"created b", true}, {"moved b c", true}, {"closed b", false},
		{"closed c", true}, {"modified d", true}, {"deleted d", true}, {"closed d", false},
	} {
		if got := o.pass(event(c.line)); got != c.want {
			t.Errorf("%s: %v", c.line, got)
		}
	}
}
