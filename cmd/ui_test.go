// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed71221737/dev/compose"
)

var plainStyle = treeStyle{
	paint:   func(_, text string) string { return text },
	spinner: []string{"*"},
	marks:   map[rowState]string{rowDone: "+", rowWarning: "!", rowFailed: "x"},
	bar:     strings.Split(" .:#", ""),
}

func frameText(r *rows, width, height int, final bool, now time.Time) string {
	var b strings.Builder
	for _, l := range r.frame(frameInput{now: now, width: width, height: height, final: final, style: plainStyle}) {
		b.WriteString(strings.TrimRight(l.plain, " ") + "\n")
		if columns(l.plain) >= width {
			b.WriteString("(too wide)\n")
		}
	}
	return b.String()
}

func TestFrame(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	r := &rows{heading: "up"}
	r.expect("Network app_default")
	r.expect("Container app-cache-1")
	r.set(status{ID: "Network app_default", Text: "Creating"}, at(0))
	r.set(status{ID: "Network app_default", Text: "Created", State: rowDone}, at(100*time.Millisecond))
	r.set(status{ID: "Image postgres:16", Text: "Pulling"}, at(0))
	r.set(status{ID: "Image postgres:16", Part: "aa", Current: 10_000_000, Total: 10_000_000}, at(0))
	r.set(status{ID: "Image postgres:16", Part: "bb", Current: 5_000_000, Total: 20_000_000}, at(0))
	r.set(status{ID: "Image postgres:16", Part: "bb", Current: 1_000, Total: 20_000_000}, at(0))
	r.set(status{ID: "Container app-web-1", Text: "Creating", Details: "environment.DEBUG changed"}, at(0))
	r.set(status{ID: "Container app-web-1", Text: "Started", State: rowDone}, at(1500*time.Millisecond))
	r.set(status{ID: "Container app-db-1", Text: "Waiting"}, at(0))
	r.set(status{ID: "Container app-db-1", Text: "Error", Details: "container \"app-db-1\" is unhealthy", State: rowFailed}, at(12*time.Second))
	r.set(status{ID: "Container app-db-1", Text: "Skipped", State: rowWarning}, at(13*time.Second))

	want := `[+] up 3/5
 + Network app_default  Created      0.1s
 * Image postgres:16    Pulling     12.5s  [#.] 15MB / 30MB
 + Container app-web-1  Started      1.5s  environment.DEBUG changed
 x Container app-db-1   Error       12.0s  container "app-db-1" is unhealthy
`
	if got := frameText(r, 100, 24, false, at(12500*time.Millisecond)); got != want {
		t.Errorf("wide:\n%s\nwant:\n%s", got, want)
	}
	if got := frameText(r, 44, 24, false, at(12500*time.Millisecond)); strings.Contains(got, "(too wide)") || !strings.Contains(got, "12.0s") {
		t.Errorf("narrow:\n%s", got)
	}
	got := frameText(r, 100, 5, false, at(12500*time.Millisecond))
	if !strings.Contains(got, "Image postgres") || !strings.Contains(got, "app-db-1") || !strings.Contains(got, "… 2 more") {
		t.Errorf("low: working and failed rows must stay:\n%s", got)
	}
	if got := frameText(r, 100, 5, true, at(12500*time.Millisecond)); strings.Contains(got, "more") {
		t.Errorf("final frame leaves rows out:\n%s", got)
	}
}

func TestFrameFitsAnyTerminal(t *testing.T) {
	now := time.Now()
	r := &rows{heading: "up"}
	for _, id := range []string{"Container a", "Image registry.example.com:5000/some/quite/long/name:with-a-tag"} {
		r.set(status{ID: id, Text: "Pulling"}, now)
		r.set(status{ID: id, Part: "x", Current: 3, Total: 9}, now)
		r.set(status{ID: id, Text: "Pulling", Details: strings.Repeat("why ", 40)}, now)
	}
	for width := 1; width < 120; width++ {
		for height := 1; height < 6; height++ {
			if got := frameText(r, width, height, false, now); strings.Contains(got, "(too wide)") {
				t.Fatalf("%d by %d:\n%s", width, height, got)
			}
		}
	}
}

func TestUpOver(t *testing.T) {
	lines := []string{strings.Repeat("x", 90), "short", ""}
	for width, want := range map[int]string{100: "\r\x1b[3A", 80: "\r\x1b[4A", 30: "\r\x1b[5A"} {
		if got := upOver(lines, width); got != want {
			t.Errorf("at width %d: %q, want %q", width, got, want)
		}
	}
	if got := upOver(nil, 80); got != "\r" {
		t.Errorf("nothing drawn: %q", got)
	}
}

func upEvents() []compose.Event {
	create := compose.Op{ID: 1, Kind: compose.OpCreateContainer, Target: "container app-web-1", Service: "web",
		Reason: "environment.DEBUG changed", Changes: []compose.Change{{Field: "environment.DEBUG"}}}
	start := compose.Op{ID: 2, Kind: compose.OpStartContainer, Target: "container app-web-1", Service: "web"}
	pull := compose.Op{ID: 3, Kind: compose.OpPullImage, Target: "image redis"}
	return []compose.Event{
		{Kind: compose.EventQueued, Op: create},
		{Kind: compose.EventStarted, Op: create},
		{Kind: compose.EventDone, Op: create},
		{Kind: compose.EventStarted, Op: pull},
		{Kind: compose.EventProgress, Op: pull, Part: "f00", Text: "Downloading", Current: 5, Total: 20},
		{Kind: compose.EventStarted, Op: start},
		{Kind: compose.EventFailed, Op: start, Err: errors.New("port 80 is taken\nby nginx")},
		{Kind: compose.EventSkipped, Op: pull},
	}
}

func TestPlainProgress(t *testing.T) {
	var b bytes.Buffer
	p := newPlainProgress(&b)
	for _, e := range upEvents() {
		p.Event(e)
	}
	p.show(status{ID: "Container app-db-1", Text: "Running", State: rowDone})
	p.close()
	want := `Container app-web-1 Creating: environment.DEBUG changed
Container app-web-1 Created
Image redis Pulling
Container app-web-1 Starting
Container app-web-1 Error: port 80 is taken
Image redis Skipped
Container app-db-1 Running
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestJSONProgress(t *testing.T) {
	var b bytes.Buffer
	p := &jsonProgress{out: &b}
	for _, e := range upEvents() {
		p.Event(e)
	}
	want := `{"id":"Container app-web-1","status":"Working","text":"Creating","details":"environment.DEBUG changed","reason":"environment.DEBUG changed"}
{"id":"Container app-web-1","status":"Done","text":"Created"}
{"id":"Image redis","status":"Working","text":"Pulling"}
{"id":"f00","parent_id":"Image redis","status":"Working","text":"Downloading","current":5,"total":20,"percent":25}
{"id":"Container app-web-1","status":"Working","text":"Starting"}
{"id":"Container app-web-1","status":"Error","text":"Error","details":"port 80 is taken"}
{"id":"Image redis","status":"Warning","text":"Skipped"}
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestTreeLeavesTheTerminalAsItWas(t *testing.T) {
	var b lockedBuffer
	restored := 0
	tr := startTree(&b, "up", plainStyle, func(f func()) func() { return func() { restored++; f() } })
	for _, e := range upEvents() {
		tr.Event(e)
	}
	tr.above(func() { b.Write([]byte("web-1 | hello\n")) })
	tr.close()
	tr.close()
	got := b.String()
	if !strings.HasPrefix(got, "\x1b[?25l") || !strings.HasSuffix(got, "\x1b[?25h") || restored != 1 {
		t.Errorf("cursor hidden and shown once? restored %d times:\n%q", restored, got)
	}
	if !strings.Contains(got, "web-1 | hello\n") || !strings.Contains(got, "port 80 is taken") {
		t.Errorf("missing output:\n%q", got)
	}
}

func TestProgressMode(t *testing.T) {
	for _, c := range []struct {
		name, flag, ansi string
		quiet            bool
		want             string
	}{
		{"no terminal", "", "auto", false, "plain"},
		{"asked for", "json", "auto", false, "json"},
		{"ansi always", "", "always", false, "tty"},
		{"ansi never", "auto", "never", false, "plain"},
		{"older name", "none", "auto", false, "quiet"},
		{"quiet wins", "json", "auto", true, "quiet"},
	} {
		a := &app{globals: globals{progressName: c.flag, ansi: c.ansi}}
		if got := a.progressMode(&bytes.Buffer{}, c.quiet); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestLogPrinter(t *testing.T) {
	var out, err bytes.Buffer
	p := &logPrinter{out: &out, err: &err, prefix: true, timestamps: true, paint: func(style, text string) string { return "<" + style + ">" + text }}
	when := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	p.register("web-1")
	p.register("database-1")
	p.line("web-1", false, when, "hello\n")
	p.line("database-1", true, time.Time{}, "oh")
	p.status("web-1", "exited with code 3")
	if got, want := out.String(), "<36>web-1       | 2026-01-02T03:04:05.000000600Z hello\n<36>web-1 exited with code 3\n"; got != want {
		t.Errorf("out %q, want %q", got, want)
	}
	if got, want := err.String(), "<33>database-1  | oh\n"; got != want {
		t.Errorf("err %q, want %q", got, want)
	}
}

// lockedBuffer is a buffer that several goroutines may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
