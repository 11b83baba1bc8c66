// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/build"
)

// buildScene is a clock for builds in tests.
var buildScene = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func second(n float64) *time.Time {
	t := buildScene.Add(time.Duration(n * float64(time.Second)))
	return &t
}

// watchBuild has a build tell its progress, and returns what shows it.
func watchBuild(tell func(string), news ...build.Status) *builds {
	b := newBuilds(tell)
	op := compose.Op{ID: 7, Kind: compose.OpBuildImage, Service: "web"}
	b.take(compose.Event{Kind: compose.EventStarted, Op: op})
	b.began = buildScene
	for i := range news {
		b.take(compose.Event{Kind: compose.EventProgress, Op: op, Detail: &news[i]})
	}
	return b
}

var buildNews = []build.Status{
	{Steps: []build.Step{{ID: "c", Name: "[2/2] RUN make"}, {ID: "b", Name: "[1/2] FROM x"}, {ID: "d", Name: "exporting to image"}}},
	{Steps: []build.Step{{ID: "b", Name: "[1/2] FROM x", Started: second(0)}}, Parts: []build.Part{{Step: "b", Name: "sha256:1", Current: 1e6, Total: 4e6, Started: second(0)}}},
	{Parts: []build.Part{{Step: "b", Name: "sha256:1", Current: 2e6, Total: 4e6, Started: second(0)}}},
	{Parts: []build.Part{{Step: "b", Name: "sha256:1", Current: 4e6, Total: 4e6, Started: second(0), Completed: second(1)}}},
	{Steps: []build.Step{{ID: "b", Name: "[1/2] FROM x", Started: second(0), Completed: second(1.5)}}},
	{Steps: []build.Step{{ID: "c", Name: "[2/2] RUN make", Started: second(2)}}},
	{Logs: []build.Log{{Step: "c", Data: []byte("one\ntw"), At: *second(2.25)}, {Step: "c", Data: []byte("o\n10%\r100%\nthree"), At: *second(3)}}},
}

func TestBuildsAsLines(t *testing.T) {
	var said []string
	watchBuild(func(line string) { said = append(said, line) }, append(buildNews,
		build.Status{Steps: []build.Step{{ID: "c", Name: "[2/2] RUN make", Started: second(2), Completed: second(4), Error: "exit code: 3"}}})...)
	want := `#1 [web 1/2] FROM x
#1 sha256:1 1MB / 4MB
#1 sha256:1 4MB / 4MB done
#1 DONE 1.5s
#2 [web 2/2] RUN make
#2 0.250 one
#2 1.000 two
#2 1.000 100%
#2 2.000 three
#2 ERROR: exit code: 3`
	if got := strings.Join(said, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestBuildsFrame(t *testing.T) {
	b := watchBuild(nil, buildNews...)
	in := frameInput{now: *second(4), width: 40, height: 20, style: treeStyle{paint: func(_, text string) string { return text }}}
	frame := func(lines []frameLine) string {
		var all []string
		for _, l := range lines {
			if columns(l.plain) >= in.width {
				t.Errorf("%q is wider than the terminal", l.plain)
			}
			all = append(all, l.plain)
		}
		if !in.final && len(all) >= in.height {
			t.Errorf("%d lines do not fit", len(all))
		}
		return strings.Join(all, "\n")
	}
	want := `[+] Building 4.0s (1/3)
 => [web 1/2] FROM x               1.5s
 => [web 2/2] RUN make             2.0s
 => => # 0.250 one
 => => # 1.000 two
 => => # 1.000 100%`
	if got := frame(b.frame(in)); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for in.height = 4; in.height < 20; in.height++ {
		if got := frame(b.frame(in)); !strings.Contains(got, "RUN make") {
			t.Errorf("height %d hides what runs:\n%s", in.height, got)
		}
	}
	in.height = 20
	if got := frame(b.finish(in)); !strings.HasPrefix(got, "[+] Building 4.0s (1/3)\n") || b.active() {
		t.Errorf("at the end:\n%s", got)
	}
}

func TestBuildsEnd(t *testing.T) {
	b := watchBuild(nil, buildNews...)
	other := compose.Op{ID: 8, Kind: compose.OpBuildImage, Service: "db"}
	b.take(compose.Event{Kind: compose.EventStarted, Op: other})
	if _, ended := b.take(compose.Event{Kind: compose.EventDone, Op: compose.Op{ID: 7, Kind: compose.OpBuildImage}}); ended {
		t.Error("one build runs still")
	}
	if taken, ended := b.take(compose.Event{Kind: compose.EventFailed, Op: other}); taken || !ended {
		t.Errorf("the last build's end: taken %v, ended %v", taken, ended)
	}
}
