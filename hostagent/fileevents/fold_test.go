// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// event reads "modified a", "moved a b" or "moved/ a b", the slash for a folder.
func event(line string) wire.Event {
	f := strings.Fields(line)
	kind, dir := strings.CutSuffix(f[0], "/")
	e := wire.Event{Path: f[1], Dir: dir}
	for k := wire.Created; k <= wire.Rescan; k++ {
		if k.String() == kind {
			e.Kind = k
		}
	}
	if len(f) > 2 {
		e.To = f[2]
	}
	return e
}

func events(lines ...string) []wire.Event {
	var all []wire.Event
	for _, l := range lines {
		all = append(all, event(l))
	}
	return all
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"writes of one file", []string{"modified a", "modified a", "modified a", "closed a"}, []string{"modified a", "closed a"}},
		{"two savings", []string{"modified a", "closed a", "modified a", "closed a"}, []string{"modified a", "closed a"}},
		{"a closing after a later write", []string{"closed a", "modified a", "closed a"}, []string{"closed a", "modified a", "closed a"}},
		{"files in turn", []string{"modified a", "modified b", "modified a"}, []string{"modified a", "modified b"}},
		{"creation stays before content", []string{"created a", "modified a", "attributes a", "modified a", "closed a"},
			[]string{"created a", "modified a", "attributes a", "closed a"}},
		{"another file of the name", []string{"modified a", "deleted a", "created a", "modified a"}, []string{"modified a", "deleted a", "created a", "modified a"}},
		{"moved over", []string{"modified a", "moved b a", "modified a"}, []string{"modified a", "moved b a", "modified a"}},
		{"moved away", []string{"modified a", "moved a b", "modified a"}, []string{"modified a", "moved a b", "modified a"}},
		{"below a folder that moves", []string{"modified d/a", "moved/ d e", "moved/ f d", "modified d/a"}, []string{"modified d/a", "moved/ d e", "moved/ f d", "modified d/a"}},
		{"names are all told", []string{"created a", "deleted a", "created a"}, []string{"created a", "deleted a", "created a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := Fold(events(c.in...)), events(c.want...); !slices.Equal(got, want) {
				t.Errorf("folded: %v\nwant:   %v", got, want)
			}
		})
	}
}

// In a storm, what came and went meanwhile is not told; what is left is.
func TestFoldStorm(t *testing.T) {
	var in []wire.Event
	for i := range 2 * storm {
		name := "f" + strconv.Itoa(i)
		in = append(in, wire.Event{Kind: wire.Created, Path: name}, wire.Event{Kind: wire.Modified, Path: name})
	}
	for i := range 2 * storm {
		in = append(in, wire.Event{Kind: wire.Deleted, Path: "f" + strconv.Itoa(i)})
	}
	in = append(in, wire.Event{Kind: wire.Created, Path: "last"})
	got := Fold(in)
	if len(got) > 3*storm || got[len(got)-1].Path != "last" {
		t.Errorf("%d events are left of %d", len(got), len(in))
	}
	if !maps.Equal(apply(got), apply(in)) {
		t.Error("the folded events end otherwise")
	}
}

// apply is what events say there is in the end: how often, at least, a name was told to have another content than 0.
func apply(events []wire.Event) map[string]bool {
	files := map[string]bool{}
	for _, e := range events {
		switch e.Kind {
		case wire.Created:
			files[e.Path] = false
		case wire.Deleted:
			delete(files, e.Path)
		case wire.Moved:
			moved := map[string]bool{}
			for name, changed := range files {
				if rest, ok := strings.CutPrefix(name, e.Path); ok && (rest == "" || rest[0] == '/') {
					delete(files, name)
					moved[e.To+rest] = changed
				}
			}
			maps.DeleteFunc(files, func(name string, _ bool) bool { return name == e.To || strings.HasPrefix(name, e.To+"/") })
			maps.Copy(files, moved)
		case wire.Modified:
			if _, ok := files[e.Path]; ok {
				files[e.Path] = true
			}
		default:
		}
	}
	return files
}

// Whatever happens, folded events end as all of them do, tell names in the same order, and never get more.
func FuzzFold(f *testing.F) {
	f.Add([]byte{0, 8, 16, 1, 9, 41, 3, 77})
	f.Add([]byte("modified, moved, deleted and created"))
	f.Fuzz(func(t *testing.T, script []byte) {
		names := []string{"a", "b", "d", "d/a", "d/e", "d/e/a", "c", "e"}
		var in []wire.Event
		for i := 0; i+1 < len(script); i += 2 {
			e := wire.Event{Kind: wire.Created + wire.EventKind(script[i]%6), Path: names[script[i]>>3%8]}
			e.Dir = e.Path == "d" || e.Path == "d/e" || e.Path == "e"
			if e.Kind == wire.Moved {
				if e.To = names[script[i+1]%8]; e.To == e.Path || strings.HasPrefix(e.To, e.Path+"/") {
					continue
				}
				e.Dir = e.Dir || e.To == "d" || e.To == "d/e" // what has files below it there had them where it was
			}
			in = append(in, e)
		}
		got := Fold(in)
		if len(got) > len(in) {
			t.Fatalf("%d events of %d", len(got), len(in))
		}
		if a, b := apply(in), apply(got); !maps.Equal(a, b) {
			t.Fatalf("events %v end with %v, folded %v with %v", in, a, got, b)
		}
		structural := func(e wire.Event) bool {
			return e.Kind == wire.Modified || e.Kind == wire.Closed || e.Kind == wire.Attributes
		}
		if a, b := slices.DeleteFunc(slices.Clone(in), structural), slices.DeleteFunc(slices.Clone(got), structural); !slices.Equal(a, b) {
			t.Fatalf("names of %v are told as %v", in, got)
		}
	})
}

// Halves of moves find each other with other events between them, and are deletions and creations where they do not.
func TestPairer(t *testing.T) {
	now := time.Now()
	half := func(line string, cookie uint64) raw { return raw{Event: event(line), cookie: cookie, at: now} }
	var p pairer
	got := p.feed([]raw{half("deleted a", 7), half("modified x", 0), half("created b", 7), half("created in", 9), half("deleted out", 11), half("modified y", 0)})
	var lines []string
	for _, e := range append(got, p.release(now.Add(time.Second))...) {
		lines = append(lines, e.String())
	}
	want := []string{`moved "a" to "b"`, `modified "x"`, `created "in"`, `deleted "out"`, `modified "y"`}
	if !slices.Equal(lines, want) {
		t.Errorf("%v, want %v", lines, want)
	}
	if p.waiting() {
		t.Error("it waits for what is settled")
	}
	if got := p.feed([]raw{half("deleted a", 13)}); len(got) != 0 || !p.waiting() {
		t.Errorf("a half was let go at once: %v", got)
	}
	if got := p.feed([]raw{half("created b", 13)}); len(got) != 1 || got[0].Kind != wire.Moved {
		t.Errorf("halves of two readings: %v", got)
	}
}

// A folder that moves takes its watches with it, and those of what it replaces end.
func TestDirs(t *testing.T) {
	d := newDirs()
	for handle, path := range []string{"", "a", "a/b", "a/b/c", "x", "x/b"} {
		d.add(path, int32(handle+1))
	}
	if gone := d.move("a/b", "x/b"); !slices.Equal(gone, []int32{6}) {
		t.Errorf("replaced handles: %v", gone)
	}
	if path, _ := d.path(4); path != "x/b/c" {
		t.Errorf("a folder in a moved one is at %q", path)
	}
	d.add("x/new", 3) // the same folder, which has moved before we heard of it
	if path, _ := d.path(3); path != "x/new" || d.has("x/b") {
		t.Errorf("the moved folder is at %q", path)
	}
	d.move("x/b", "x/new")
	if path, _ := d.path(4); path != "x/new/c" {
		t.Errorf("what is in it is at %q", path)
	}
	gone := d.drop("x")
	slices.Sort(gone)
	if !slices.Equal(gone, []int32{3, 4, 5}) || d.count != 2 {
		t.Errorf("dropped %v, %d are left", gone, d.count)
	}
	if list := d.list(); !slices.Equal(list, []string{"", "a"}) {
		t.Errorf("left: %q", list)
	}
}
