// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The table is between these in docs/shares.md.
const (
	tableBegin = "<!-- Written by a test from vmimage/guest/share/sharetest/testdata. Do not edit: UPDATE=1 go test ./vmimage/guest/share/sharetest -run TestPublished -->\n"
	tableEnd   = "<!-- End of what is written by a test. -->\n"
)

// TestPublished says that what is published is what was found out. UPDATE=1 writes it.
func TestPublished(t *testing.T) {
	var all []Results
	for _, w := range ways {
		r, err := ReadResults(filepath.Join("testdata", w.way+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if r.Way != w.way || r.Date == "" || r.Kernel == "" {
			t.Errorf("%s: these are results of %q of %q, Linux %q", w.way, r.Way, r.Date, r.Kernel)
		}
		all = append(all, r)
	}
	const page = "../../../../docs/shares.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), tableBegin)
	_, tail, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("docs/shares.md has no place for the table")
	}
	due := head + tableBegin + Table(all) + tableEnd + tail
	if due == string(data) {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatal("docs/shares.md does not say what was found: UPDATE=1 go test ./vmimage/guest/share/sharetest -run TestPublished")
	}
	if err := os.WriteFile(page, []byte(due), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every case has its place in the table, and the newest results know every case: who adds one runs them again.
func TestTableIsWhole(t *testing.T) {
	count := map[string]int{}
	for _, c := range append(Cases(), Programs(Usual)...) {
		count[c.Group]++
		if !slices.ContainsFunc(rows, func(r struct {
			title  string
			groups []string
		}) bool {
			return slices.Contains(r.groups, c.Group)
		}) {
			t.Errorf("%q has no row", c.Group)
		}
	}
	for _, way := range []string{"disk", "fuse"} {
		r, err := ReadResults(filepath.Join("testdata", way+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for g, due := range count {
			if n := r.Groups[g]; n.Passed+n.Failed+n.NotTried != due {
				t.Errorf("%s: %q has %d cases, and the results are of another number: %+v: run them again with DEV_TEST_SHARES_RECORD", way, g, due, n)
			}
		}
	}
}

func TestTable(t *testing.T) {
	r := Results{Way: "fuse", Date: "2026-01-02", Kernel: "6.1", Groups: map[string]Counts{}}
	for _, o := range []Outcome{{"chmod", "a", nil}, {"stat", "b", errors.New("it is\nnot")}, {"programs", "c", Missing("rsync")}, {"names", "d", nil}} {
		r.add(o)
	}
	got := Table([]Results{r})
	for _, due := range []string{"| chmod, chown, lchown, utimensat, stat, statfs | not run | 1 of 2 | not run | not run |", "| 2026-01-02, Linux 6.1 |", "- stat: b: it is not\n", "- programs: c: needs rsync\n", ", … | not run | 1 | not run | not run |"} {
		if !strings.Contains(got, due) {
			t.Errorf("%q is not in\n%s", due, got)
		}
	}
}

// Results of some groups leave what is known of others.
func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	results := func(date string, all ...Outcome) *Results {
		r := Results{Way: "fuse-vm", Date: date, Kernel: "6.1", How: "here", Groups: map[string]Counts{}}
		for _, o := range all {
			r.add(o)
		}
		return &r
	}
	for _, r := range []*Results{
		results("2026-01-01", Outcome{"chmod", "a", errors.New("x")}, Outcome{"programs", "b", Missing("rsync")}, Outcome{"programs", "c", errors.New("y")}),
		results("2026-01-02", Outcome{"programs", "b", nil}, Outcome{"programs", "c", errors.New("z")}),
	} {
		if err := r.Update(path); err != nil {
			t.Fatal(err)
		}
	}
	r, err := ReadResults(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Results{
		Way: "fuse-vm", Date: "2026-01-02", Kernel: "6.1", How: "here, some cases on 2026-01-01", Groups: map[string]Counts{"chmod": {Failed: 1}, "programs": {Passed: 1, Failed: 1}},
		Failed: []Finding{{"chmod", "a", "x"}, {"programs", "c", "z"}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("there is\n%+v, not\n%+v", r, want)
	}
}
