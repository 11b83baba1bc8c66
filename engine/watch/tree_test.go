// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// playground is a folder that is watched.
type playground struct {
	t    *testing.T
	dir  string
	tree *Tree
	// there is what the changes add up to: what a receiver would have.
	there map[string]string
}

// play makes a folder with files and watches the roots in it, the folder itself if there are none.
func play(t *testing.T, files string, roots ...string) *playground {
	t.Helper()
	g := &playground{t: t, dir: t.TempDir(), there: map[string]string{}}
	for _, f := range strings.Fields(files) {
		g.write(f, "old")
	}
	o := Options{Roots: []string{g.dir}, Prune: func(dir string) bool { return filepath.Base(dir) == "pruned" }}
	if len(roots) > 0 {
		o.Roots = nil
		for _, r := range roots {
			o.Roots = append(o.Roots, filepath.Join(g.dir, r))
		}
	}
	var err error
	if g.tree, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.tree.Close() })
	for _, c := range g.tree.Known(g.dir) {
		g.take(c.Path, c.Dir)
	}
	return g
}

func (g *playground) take(name string, dir bool) {
	g.there[name] = "folder"
	if !dir {
		b, _ := os.ReadFile(name)
		g.there[name] = string(b)
	}
}

func (g *playground) write(name, content string) {
	g.t.Helper()
	name = filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func (g *playground) remove(name string) {
	g.t.Helper()
	if err := os.RemoveAll(filepath.Join(g.dir, name)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *playground) move(from, to string) {
	g.t.Helper()
	if err := os.Rename(filepath.Join(g.dir, from), filepath.Join(g.dir, to)); err != nil {
		g.t.Fatal(err)
	}
}

// until takes changes until they add up to want: words path=content, folders left out.
func (g *playground) until(want string) (sets int) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Minute)
	defer cancel()
	for {
		if got := g.text(); got == want {
			return sets
		}
		changes, err := g.tree.Next(ctx)
		if err != nil {
			g.t.Fatalf("%v: have\n%s\nwant\n%s", err, g.text(), want)
		}
		sets++
		for _, c := range changes {
			if c.Removed {
				maps.DeleteFunc(g.there, func(name, _ string) bool { return below(c.Path, name) })
				continue
			}
			g.take(c.Path, c.Dir)
		}
	}
}

func (g *playground) text() string {
	var words []string
	for name, content := range g.there {
		if content != "folder" {
			rel, _ := filepath.Rel(g.dir, name)
			words = append(words, filepath.ToSlash(rel)+"="+content)
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestChanges(t *testing.T) {
	for _, test := range []struct {
		name, files string
		roots       []string
		do          func(*playground)
		want        string
	}{
		{"written", "a b", nil, func(g *playground) { g.write("a", "newer") }, "a=newer b=old"},
		{"saved as editors do", "a", nil, func(g *playground) { g.write("a.tmp", "newer"); g.move("a.tmp", "a") }, "a=newer"},
		{"removed", "a b", nil, func(g *playground) { g.remove("a") }, "b=old"},
		{"a new folder with folders", "a", nil, func(g *playground) { g.write("d/e/f", "new") }, "a=old d/e/f=new"},
		{"a folder removed", "d/a d/e/b c", nil, func(g *playground) { g.remove("d") }, "c=old"},
		{"a folder moved", "d/e/a", nil, func(g *playground) { g.move("d", "x") }, "x/e/a=old"},
		{"a folder moved, and written to there", "d/e/a", nil, func(g *playground) { g.move("d", "x"); g.write("x/e/a", "newer") }, "x/e/a=newer"},
		{"a folder replaced by another of the name", "d/a d/b", nil, func(g *playground) { g.remove("d"); g.write("d/b", "newer"); g.write("d/c", "new") }, "d/b=newer d/c=new"},
		{"a file becomes a folder", "a", nil, func(g *playground) { g.remove("a"); g.write("a/b", "new") }, "a/b=new"},
		{"a folder becomes a file", "a/b", nil, func(g *playground) { g.remove("a"); g.write("a", "new") }, "a=new"},
		{"pruned folders stay unseen", "pruned/a b", nil, func(g *playground) { g.write("pruned/a", "x"); g.write("d/pruned/x", "x"); g.write("b", "newer") }, "b=newer"},
		{"a file as root", "a b", []string{"a"}, func(g *playground) { g.write("b", "x"); g.write("t", "newer"); g.move("t", "a") }, "a=newer"},
		{"a root that is not there yet", "a", []string{"x/y/z"}, func(g *playground) { g.write("x/y/z/f", "new") }, "x/y/z/f=new"},
		{"a root that goes and comes back", "r/a", []string{"r"}, func(g *playground) { g.remove("r"); g.write("r/b", "new") }, "r/b=new"},
		{"two roots, one in the other", "r/s/a", []string{"r", "r/s"}, func(g *playground) { g.write("r/s/a", "newer") }, "r/s/a=newer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := play(t, test.files, test.roots...)
			test.do(g)
			g.until(test.want)
			g.write(roots(test.roots)+"/later", "1") // what is there now is still watched
			g.until(strings.TrimSpace(sorted(test.want + " " + later(test.roots))))
		})
	}
}

// roots is a folder in the first root, or the folder itself.
func roots(list []string) string {
	if len(list) == 0 || list[0] == "a" {
		return "."
	}
	return list[0]
}

func later(list []string) string {
	switch {
	case len(list) == 0:
		return "later=1"
	case list[0] == "a":
		return ""
	}
	return list[0] + "/later=1"
}

func sorted(words string) string {
	list := strings.Fields(words)
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestNothingChangedIsNoChange(t *testing.T) {
	g := play(t, "a b")
	if err := os.Chmod(filepath.Join(g.dir, "a"), 0o644); err != nil { // an event, and yet nothing is different
		t.Fatal(err)
	}
	g.write("b", "newer")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changes, err := g.tree.Next(ctx)
	if err != nil || len(changes) != 1 || changes[0].Path != filepath.Join(g.dir, "b") {
		t.Errorf("got %v, %v", changes, err)
	}
}

// TestStorm makes as many changes as a checkout of a large repository, and counts the sets that they come in.
func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 files")
	}
	const n, most = 100_000, 200
	g := play(t, "a")
	var want []string
	done := make(chan error, 1)
	for i := range n {
		want = append(want, fmt.Sprintf("d%d/f%d=", i%500, i))
	}
	go func() { done <- storm(g.dir, n) }()
	want = append(want, "a=old")
	slices.Sort(want)
	sets := g.until(strings.Join(want, " "))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if sets > most {
		t.Errorf("%d files came in %d sets, %d are the most", n, sets, most)
	}
	t.Logf("%d files in %d sets", n, sets)
}

func storm(dir string, n int) error {
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i%500))
		if i < 500 {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("f%d", i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func TestPause(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		n           int
		first, last time.Duration
		now         bool
	}{
		{1, 0, 0, false}, {1, 20 * ms, 20 * ms, true}, {1, 240 * ms, ms, false}, {1, 260 * ms, ms, true},
		{1000, 260 * ms, ms, false}, {1000, time.Second, 100 * ms, false}, {1000, time.Second, 310 * ms, true}, {1000, 11 * time.Second, ms, true},
	} {
		if got := pause(test.n, test.first, test.last); (got <= 0) != test.now || got > 300*ms {
			t.Errorf("pause(%d, %s, %s) = %s", test.n, test.first, test.last, got)
		}
	}
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	g := play(t, "a b d/c")
	// What the library reports when the system's queue overflows, while changes went unnoticed.
	for _, name := range []string{g.dir, filepath.Join(g.dir, "d"), filepath.Dir(g.dir)} {
		if err := g.tree.fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	g.write("a", "newer")
	g.remove("b")
	g.write("d/e/f", "new")
	g.tree.note("", false, nil)
	g.until("a=newer d/c=old d/e/f=new")
	g.write("d/e/f", "newer")
	g.until("a=newer d/c=old d/e/f=newer")
}

func TestLimitsAreExplained(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the limits of inotify")
	}
	for _, test := range []struct {
		err     error
		watched int
		want    string
	}{
		{syscall.ENOSPC, 8192, "fs.inotify.max_user_watches"}, {syscall.EMFILE, 0, "fs.inotify.max_user_instances"}, {syscall.EMFILE, 9, "ulimit"},
	} {
		var limit *LimitError
		err := limited(fmt.Errorf("watch: %w", test.err), test.watched)
		if !errors.As(err, &limit) || !strings.Contains(limit.Hint(), test.want) || !errors.Is(err, test.err) {
			t.Errorf("%v: %v", test.err, err)
		}
	}
	if err := limited(os.ErrPermission, 1); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	g := play(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.tree.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = g.tree.Close()
	if _, err := g.tree.Next(t.Context()); err == nil {
		t.Error("a closed tree goes on")
	}
}
