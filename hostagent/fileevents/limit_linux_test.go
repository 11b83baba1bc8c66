// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A share leaves watches to other programs: beyond its part folders are not watched, which is told once; those that are stay so, and one that is forgotten makes room.
func TestSpare(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var told []error
	w, err := Open(root, Options{Problem: func(err error) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.most == 0 {
		t.Error("there is no bound")
	}
	w.most = 2 // with the root
	for i, c := range []struct {
		path string
		want bool
	}{{"a", true}, {"b", false}, {"c", false}, {"a", true}, {"", true}} {
		if got := w.Add(c.path); got != c.want {
			t.Errorf("%d: Add(%q) is %v", i, c.path, got)
		}
	}
	var limit *LimitError
	if len(told) != 1 || !errors.As(told[0], &limit) || !strings.Contains(limit.Hint(), "sysctl fs.inotify.max_user_watches=") {
		t.Errorf("it was told: %v", told)
	}
	w.Forget("a")
	if !w.Add("b") {
		t.Error("there is no room after one was forgotten")
	}
}
