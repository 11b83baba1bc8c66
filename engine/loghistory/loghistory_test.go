// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package loghistory

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var when = time.Unix(1700000000, 123)

func save(t *testing.T, s Store, n int, lines ...Line) {
	t.Helper()
	g := Generation{Project: "shop", Service: "web", Container: "shop-web-1", ID: fmt.Sprintf("%064d", n), Created: when.Add(time.Duration(n) * time.Hour)}
	err := s.Save(g, func(emit func(Line)) error {
		for _, l := range lines {
			emit(l)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGenerations(t *testing.T) {
	s := Store{t.TempDir()}
	if all, err := s.List("shop"); err != nil || len(all) != 0 {
		t.Fatalf("nothing yet: %v, %v", all, err)
	}
	want := []Line{{Time: when, Text: "one  two"}, {Time: when.Add(1), Stderr: true, Text: ""}, {Time: when.Add(2), Text: "ünïcödé\ttab"}}
	save(t, s, 1, want...)
	save(t, s, 2) // wrote nothing: not kept
	for n := 3; n < 9; n++ {
		save(t, s, n, Line{Time: when, Text: fmt.Sprint(n)})
	}
	all, err := s.List("shop")
	if err != nil || len(all) != kept {
		t.Fatalf("got %d generations, %v", len(all), err)
	}
	for i, g := range all {
		var got []string
		if err := g.Read(func(l Line) { got = append(got, l.Text) }); err != nil {
			t.Error(err)
		}
		if g.Number != i+1 || g.Service != "web" || fmt.Sprint(got) != fmt.Sprintf("[%d]", i+4) {
			t.Errorf("generation %+v: %v", g, got)
		}
	}

	s = Store{t.TempDir()}
	save(t, s, 1, want...)
	all, err = s.List("shop")
	if err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v", all, err)
	}
	var got []Line
	if err := all[0].Read(func(l Line) { got = append(got, l) }); err != nil || len(got) != len(want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for i := range want {
		if !got[i].Time.Equal(want[i].Time) || got[i].Text != want[i].Text || got[i].Stderr != want[i].Stderr {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

func TestFailedSaveLeavesNothing(t *testing.T) {
	s := Store{t.TempDir()}
	boom := errors.New("boom")
	err := s.Save(Generation{Project: "shop", Container: "c", ID: "1"}, func(emit func(Line)) error {
		emit(Line{Text: "x"})
		return boom
	})
	if all, listErr := s.List("shop"); !errors.Is(err, boom) || listErr != nil || len(all) != 0 {
		t.Errorf("got %v, %v, %v", err, all, listErr)
	}
}

func TestBoundedAndDamaged(t *testing.T) {
	s := Store{t.TempDir()}
	long := strings.Repeat("x", 1<<20)
	var lines []Line
	for range 20 {
		lines = append(lines, Line{Time: when, Text: long})
	}
	save(t, s, 1, lines...)
	all, err := s.List("shop")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := all[0].Read(func(Line) { n++ }); err != nil || n != 16 {
		t.Errorf("%d lines of a megabyte were kept, %v", n, err)
	}
	data, err := os.ReadFile(all[0].path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(all[0].path, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := all[0].Read(func(Line) {}); err == nil || !strings.Contains(err.Error(), "shop-web-1") {
		t.Errorf("a damaged file: %v", err)
	}
}
