// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

func TestStaleNames(t *testing.T) {
	many := make([]wire.Event, maxStale+1)
	for i := range many {
		many[i] = wire.Event{Kind: wire.Created, Path: fmt.Sprintf("f%d", i)}
	}
	long := make([]wire.Event, 300)
	for i := range long {
		long[i] = wire.Event{Kind: wire.Modified, Path: fmt.Sprintf("%d%s", i, strings.Repeat("/folder", 600))}
	}
	for _, test := range []struct {
		name   string
		events []wire.Event
		want   string
	}{
		{"nothing", nil, ""},
		{"made, written and closed", []wire.Event{{Kind: wire.Created, Path: "a/f"}, {Kind: wire.Modified, Path: "a/f"}, {Kind: wire.Closed, Path: "a/f"}}, "a/f listed content"},
		{"attributes", []wire.Event{{Kind: wire.Attributes, Path: "f"}}, "f"},
		{"the folder itself", []wire.Event{{Kind: wire.Attributes, Dir: true}}, ""},
		{"moved and removed", []wire.Event{{Kind: wire.Moved, Path: "a", To: "b/c", Dir: true}, {Kind: wire.Deleted, Path: "d"}}, "a listed, b/c listed, d listed"},
		{"mapped and closed", []wire.Event{{Kind: wire.Closed, Path: "f"}}, "f"},
		{"lost", []wire.Event{{Kind: wire.Created, Path: "f"}, {Kind: wire.Rescan, Dir: true}}, "unknown"},
		{"many", many, "all"},
		{"just not too many", many[:maxStale], "2048 names"},
		{"long", long, "all"},
	} {
		stale, known := staleNames(test.events)
		var told []string
		for _, n := range stale.Names {
			text := string(n.Path)
			if n.Listed {
				text += " listed"
			}
			if n.Content {
				text += " content"
			}
			told = append(told, text)
		}
		got := strings.Join(told, ", ")
		switch {
		case !known:
			got = "unknown"
		case stale.All:
			got = "all"
		case len(told) > 10:
			got = fmt.Sprintf("%d names", len(told))
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
