// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/seed71221737/dev/compose"
)

func at(seconds int) time.Time { return started.Add(time.Duration(seconds) * time.Second) }

// logged has the fake answer for a container's log.
func logged(f *fake, id string, contentType types.MediaType, body ...[]byte) {
	f.on("GET /containers/"+id+"/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, b := range body {
			_, _ = w.Write(b)
		}
	})
}

func readAll(t *testing.T, c *Client, o LogsOptions, containers ...compose.Container) []string {
	t.Helper()
	var out []string
	err := c.Logs(t.Context(), containers, o, func(l LogLine) {
		stream := "out"
		if l.Stderr {
			stream = "err"
		}
		out = append(out, fmt.Sprintf("%s %s %s %s", l.Time.Format("15:04:05"), l.Container.Name, stream, l.Text))
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func TestLogsMergeByTime(t *testing.T) {
	f := newFake(t)
	logged(f, "a", types.MediaTypeMultiplexedStream, frame(1, at(1), "one\n"), frame(2, at(4), "four\n"))
	logged(f, "b", types.MediaTypeMultiplexedStream, frame(1, at(2), "two\n"), frame(1, at(3), "three\n"), frame(1, at(5), "no end"))
	logged(f, "tty", types.MediaTypeRawStream, []byte(at(2).Format(time.RFC3339Nano)+" tty two\r\n"+at(6).Format(time.RFC3339Nano)+" tty six\r\n"))
	got := readAll(t, f.client(), LogsOptions{},
		compose.Container{ID: "a", Name: "a"}, compose.Container{ID: "b", Name: "b"}, compose.Container{ID: "tty", Name: "tty"}, compose.Container{ID: "gone", Name: "gone"})
	want := []string{
		"10:00:01 a out one", "10:00:02 b out two", "10:00:02 tty out tty two", "10:00:03 b out three",
		"10:00:04 a err four", "10:00:05 b out no end", "10:00:06 tty out tty six",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLogsJoinLongLines: the engine cuts lines at 16 KiB and puts a time before each part.
func TestLogsJoinLongLines(t *testing.T) {
	f := newFake(t)
	part := strings.Repeat("x", 16<<10)
	logged(f, "a", types.MediaTypeMultiplexedStream, frame(1, at(1), part), frame(2, at(2), "between\n"), frame(1, at(1), part), frame(1, at(1), "end\n"))
	got := readAll(t, f.client(), LogsOptions{}, compose.Container{ID: "a"})
	if len(got) != 2 || got[1] != "10:00:01  out "+part+part+"end" {
		t.Errorf("got %d lines, the last of %d bytes", len(got), len(got[len(got)-1]))
	}
}

func TestLogsAskAnOlderEngineForTheTerminal(t *testing.T) {
	f := newFake(t)
	f.version = "1.41"
	logged(f, "a", types.MediaTypeRawStream, frame(1, at(1), "one\n"))
	f.reply("GET /containers/a/json", 200, container.InspectResponse{ID: "a", Config: &container.Config{Tty: false}})
	if got := readAll(t, f.client(), LogsOptions{}, compose.Container{ID: "a", Name: "a"}); !slices.Equal(got, []string{"10:00:01 a out one"}) {
		t.Errorf("got %q", got)
	}
}

func TestLogsOfADriverThatKeepsNothing(t *testing.T) {
	f := newFake(t)
	f.reply("GET /containers/a/logs", 501, "configured logging driver does not support reading")
	err := f.client().Logs(t.Context(), []compose.Container{{ID: "a", Name: "app-a-1"}}, LogsOptions{}, func(LogLine) {})
	if err == nil || !strings.Contains(err.Error(), `container "app-a-1": configured logging driver`) {
		t.Errorf("got %v", err)
	}
}

func TestLogsPassTheirBounds(t *testing.T) {
	f := newFake(t)
	var query string
	f.on("GET /containers/a/logs", func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		w.Header().Set("Content-Type", types.MediaTypeMultiplexedStream)
	})
	readAll(t, f.client(), LogsOptions{Since: "100", Until: "200", Tail: "5"}, compose.Container{ID: "a"})
	if want := "since=100&stderr=1&stdout=1&tail=5&timestamps=1&until=200"; query != want {
		t.Errorf("asked %s, want %s", query, want)
	}
}

// talkers are actors whose logs stay open until they end.
type talkers struct {
	*actors
	mu    sync.Mutex
	pipes map[string]chan []byte
	since []string
}

func newTalkers(t *testing.T) *talkers {
	a := &talkers{actors: &actors{
		fake: newFake(t), states: map[string]*container.State{}, streams: map[chan events.Message]context.CancelFunc{}, opened: make(chan struct{}, 100),
	}, pipes: map[string]chan []byte{}}
	a.on("GET /events", a.serveEvents)
	a.on("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		a.actors.mu.Lock()
		defer a.actors.mu.Unlock()
		if s, ok := a.states[r.PathValue("id")]; ok {
			answer(w, 200, container.InspectResponse{ID: r.PathValue("id"), State: s, Config: &container.Config{}})
			return
		}
		answer(w, 404, "No such container")
	})
	a.on("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.since = append(a.since, r.PathValue("id")+" "+r.URL.Query().Get("since"))
		pipe := a.pipes[r.PathValue("id")]
		a.mu.Unlock()
		w.Header().Set("Content-Type", types.MediaTypeMultiplexedStream)
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case b, ok := <-pipe:
				if !ok {
					return
				}
				_, _ = w.Write(b)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	return a
}

// begin has a container run, from the given second on.
func (a *talkers) begin(id string, second int, action events.Action) chan []byte {
	pipe := make(chan []byte)
	a.mu.Lock()
	a.pipes[id] = pipe
	a.mu.Unlock()
	s := running("")
	a.actors.mu.Lock()
	a.states[id] = s
	a.actors.mu.Unlock()
	s.StartedAt, s.Running = at(second).Format(time.RFC3339Nano), true
	if action != "" {
		a.tell(id, action)
	}
	return pipe
}

// end has a container end.
func (a *talkers) end(id string, second, code int) {
	a.actors.mu.Lock()
	s := exited(code)
	s.StartedAt = at(second).Format(time.RFC3339Nano)
	a.states[id] = s
	a.actors.mu.Unlock()
	a.mu.Lock()
	close(a.pipes[id])
	a.mu.Unlock()
}

// following starts to follow and returns where lines and ends come, as text, and the outcome.
func (a *talkers) following(ctx context.Context, c *Client, o LogsOptions, containers ...compose.Container) (<-chan string, <-chan error) {
	lines, done := make(chan string, 100), make(chan error, 1)
	o.Follow = true
	o.Ended = func(ctr compose.Container, e End) {
		lines <- fmt.Sprintf("%s ended %d %v %v", ctr.ID, e.Code, e.Restarting, e.Removed)
	}
	go func() {
		done <- c.Logs(ctx, containers, o, func(l LogLine) { lines <- l.Container.ID + " " + l.Text })
	}()
	return lines, done
}

func expect(t *testing.T, lines <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-lines; got != w {
			t.Errorf("got %q, want %q", got, w)
		}
	}
}

func TestFollowEndsWithTheContainers(t *testing.T) {
	a := newTalkers(t)
	pa, pb := a.begin("a", 1, ""), a.begin("b", 1, "")
	lines, done := a.following(t.Context(), a.client(), LogsOptions{}, compose.Container{ID: "a"}, compose.Container{ID: "b"})
	pa <- frame(1, at(2), "hello\n")
	expect(t, lines, "a hello")
	pb <- frame(1, at(2), "there\n")
	expect(t, lines, "b there")
	a.end("a", 1, 0)
	expect(t, lines, "a ended 0 false false")
	a.end("b", 1, 3)
	expect(t, lines, "b ended 3 false false")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowTakesUpWhatStarts(t *testing.T) {
	a := newTalkers(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := LogsOptions{Project: "app", Stay: true, Accept: func(c compose.Container) bool { return c.Name != "app-no-1" }}
	lines, done := a.following(ctx, a.client(), o)
	<-a.opened
	a.begin("no", 5, events.ActionStart)
	p := a.begin("new", 5, events.ActionStart)
	p <- frame(1, at(6), "born\n")
	expect(t, lines, "new born")
	a.end("new", 5, 1)
	expect(t, lines, "new ended 1 false false")

	// It starts again: only the lines of its new run are asked for, and a repeated event changes nothing.
	p = a.begin("new", 8, events.ActionStart)
	p <- frame(1, at(9), "again\n")
	expect(t, lines, "new again")
	a.end("new", 8, 0)
	expect(t, lines, "new ended 0 false false")
	a.tell("new", events.ActionStart)
	p = a.begin("last", 9, events.ActionStart)
	p <- frame(1, at(9), "end\n")
	expect(t, lines, "last end")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	want := []string{"new " + unixTime(at(5)), "new " + unixTime(at(8)), "last " + unixTime(at(9))}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.since, want) {
		t.Errorf("read since %q, want %q", a.since, want)
	}
}

func TestFollowGoesOnWithARestartedContainer(t *testing.T) {
	a := newTalkers(t)
	p := a.begin("a", 1, "")
	lines, done := a.following(t.Context(), a.client(), LogsOptions{}, compose.Container{ID: "a"})
	p <- frame(1, at(2), "first\n")
	expect(t, lines, "a first")
	a.mu.Lock()
	old := a.pipes["a"]
	a.mu.Unlock()
	p = a.begin("a", 3, "")
	close(old)
	p <- frame(1, at(4), "second\n")
	expect(t, lines, "a second")
	a.end("a", 3, 0)
	expect(t, lines, "a ended 0 false false")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowGivesUpOnALogThatKeepsEnding(t *testing.T) {
	a := newTalkers(t)
	close(a.begin("a", 1, ""))
	_, done := a.following(t.Context(), a.client(), LogsOptions{}, compose.Container{ID: "a"})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := a.count("GET /containers/a/logs"); n > maxResumes+1 {
		t.Errorf("read %d times", n)
	}
}

func TestFollowNoticesARemoval(t *testing.T) {
	a := newTalkers(t)
	p := a.begin("a", 1, "")
	lines, done := a.following(t.Context(), a.client(), LogsOptions{}, compose.Container{ID: "a"})
	p <- frame(1, at(2), "bye\n")
	expect(t, lines, "a bye")
	a.setSilently("a", nil)
	close(p)
	expect(t, lines, "a ended 0 false true")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMergeLines(t *testing.T) {
	var streams []chan LogLine
	for i := range 5 {
		ch := make(chan LogLine, 100)
		for j := range 20 {
			ch <- LogLine{Time: at(j*(i+1) + i)}
		}
		close(ch)
		streams = append(streams, ch)
	}
	var times []time.Time
	mergeLines(streams, func(l LogLine) { times = append(times, l.Time) })
	if len(times) != 100 || !slices.IsSortedFunc(times, time.Time.Compare) {
		t.Errorf("%d lines, sorted %v", len(times), slices.IsSortedFunc(times, time.Time.Compare))
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(b []byte) { got = append(got, string(b)) }}
	for _, s := range []string{"a\nb", "c", "\r\n\nd", strings.Repeat("x", maxLine)} {
		_, _ = io.WriteString(w, s)
	}
	w.flush()
	w.flush()
	want := []string{"a", "bc", "", "d" + strings.Repeat("x", maxLine-1), "x"}
	if !slices.Equal(got, want) {
		t.Errorf("got %d lines: %.40q", len(got), got)
	}
}

func FuzzDemultiplex(f *testing.F) {
	f.Add(frame(1, at(1), "one\n"), false, true)
	f.Add([]byte(at(1).Format(time.RFC3339Nano)+" x\n"), true, true)
	f.Add([]byte("plain"), true, false)
	f.Fuzz(func(t *testing.T, b []byte, raw, timed bool) {
		if len(b) > 8 && (b[4] != 0 || b[5] != 0) {
			return // a frame of more than 64 KiB, for which the library makes room before it reads
		}
		n := 0
		_ = demultiplex(strings.NewReader(string(b)), raw, compose.Container{}, timed, func(l LogLine) {
			n += len(l.Text)
			if strings.Contains(l.Text, "\n") {
				t.Errorf("a line with an end in it: %q", l.Text)
			}
		})
		if n > len(b) {
			t.Errorf("%d bytes of text from %d", n, len(b))
		}
	})
}

// splitFrames gives what stdcopy gives.
func TestSplitFrames(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	frame := func(stream byte, text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text)))) + text //nolint:gosec // short
	}
	for name, stream := range map[string]string{
		"nothing": "", "both": frame(1, "out") + frame(2, "err") + frame(0, "in") + frame(1, "") + frame(1, "more"), "long": frame(2, long) + frame(1, "x"),
		"header cut": frame(1, "a") + "\x01\x00", "text cut": frame(1, "a") + frame(1, "long")[:9], "system": frame(1, "a") + frame(3, "broken"),
		"unknown": frame(1, "a") + frame(7, "b"),
	} {
		var out, errOut, wantOut, wantErr bytes.Buffer
		err := splitFrames(&out, &errOut, strings.NewReader(stream))
		_, want := stdcopy.StdCopy(&wantOut, &wantErr, strings.NewReader(stream))
		if out.String() != wantOut.String() || errOut.String() != wantErr.String() || (err == nil) != (want == nil) {
			t.Errorf("%s: got %q, %q, %v; want %q, %q, %v", name, &out, &errOut, err, &wantOut, &wantErr, want)
		}
	}
}
