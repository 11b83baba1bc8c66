// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import "github.com/seed71221737/dev/vmimage/guest/share/wire"

// openFiles are files that others may have open for writing: something was told of them and no closing yet. A closing of any other file says nothing
// that is of use, and mostly is ours: the share's server keeps files open for some time after the guest has closed them.
type openFiles map[string]struct{}

// maxOpen bounds what is remembered. A mode that is changed counts as open for ever.
const maxOpen = 1 << 14

// pass reports whether an event is worth telling.
func (o *openFiles) pass(e wire.Event) bool {
	if *o == nil || len(*o) > maxOpen {
		*o = openFiles{}
	}
	_, open := (*o)[e.Path]
	switch e.Kind {
	case wire.Created, wire.Modified, wire.Attributes:
		if !e.Dir {
			(*o)[e.Path] = struct{}{}
		}
	case wire.Closed:
		delete(*o, e.Path)
		return open
	case wire.Deleted:
		delete(*o, e.Path)
	case wire.Moved:
		delete(*o, e.Path)
		delete(*o, e.To)
		if open {
			(*o)[e.To] = struct{}{}
		}
	default:
	}
	return true
}
