// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package wire

import "strconv"

// EventKind is what happened to a file.
type EventKind uint8

// Kinds of file events.
const (
	// Created: a name appeared, with whatever has it.
	Created EventKind = iota + 1
	// Modified: content or size changed.
	Modified
	// Closed: a file that was open for writing was closed. Hosts that do not tell leave it to the guest to assume it after each Modified.
	Closed
	// Attributes: mode, owner, times or extended attributes changed.
	Attributes
	// Deleted: a name is gone.
	Deleted
	// Moved: a name became another one, To, replacing what had it.
	Moved
	// Rescan: names in a folder may have gone without an event of their own; what is known of it must be compared.
	Rescan
)

var eventKinds = [...]string{"none", "created", "modified", "closed", "attributes", "deleted", "moved", "rescan"}

// String is for logs and tests.
func (k EventKind) String() string {
	if int(k) < len(eventKinds) {
		return eventKinds[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Event is a change of a shared folder that somebody made on the host.
type Event struct {
	Kind EventKind
	// Path is below the share, slash-separated; "" is the shared folder itself.
	Path string
	// To is the new path of what was moved.
	To string
	// Dir: it is a folder.
	Dir bool
}

// String is for logs and tests.
func (e Event) String() string {
	s := e.Kind.String() + " " + strconv.Quote(e.Path)
	if e.Kind == Moved {
		s += " to " + strconv.Quote(e.To)
	}
	if e.Dir {
		s += " (folder)"
	}
	return s
}

const (
	eventDir = 1 << 7 // bit of an encoded kind
	// minEvent is the length of the shortest encoded event.
	minEvent = 1 + 2 + 2
)

// AppendEvents appends events.
func AppendEvents(b []byte, events []Event) []byte {
	for i := range events {
		kind := byte(events[i].Kind)
		if events[i].Dir {
			kind |= eventDir
		}
		b = append(b, kind)
		b = appendString(b, events[i].Path)
		b = appendString(b, events[i].To)
	}
	return b
}

// ParseEvents reads events to the end of b.
func ParseEvents(b []byte) ([]Event, error) {
	all := make([]Event, 0, min(len(b)/minEvent, 1<<12))
	d := decoder{b: b}
	for len(d.b) > 0 {
		kind := d.u8()
		e := Event{Kind: EventKind(kind &^ eventDir), Dir: kind&eventDir != 0, Path: d.str(), To: d.str()}
		if d.bad || e.Kind == 0 || e.Kind > Rescan {
			return nil, ErrMalformed
		}
		all = append(all, e)
	}
	return all, nil
}
