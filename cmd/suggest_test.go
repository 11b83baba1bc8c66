// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"web", "worker", "database", "db"}
	for word, want := range map[string]string{
		"wbe": "web", "wroker": "worker", "databse": "database", "dta": "", "Web": "web", "data": "database", "zzz": "", "": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
