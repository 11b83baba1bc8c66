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
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/seed71221737/dev/compose"
)

// LogsOptions say which lines [Client.Logs] gives.
type LogsOptions struct {
	// Since and Until are times (RFC 3339 or Unix) or durations before now ("10m"); empty is no bound.
	Since, Until string
	// Tail is how many of the last lines of each container are given; empty or "all" is all.
	Tail string
	// Follow gives new lines as they come, until the containers have ended. It knows no order between containers.
	Follow bool

	// The rest is for Follow only.

	// Project, when set, has containers of the project followed that start later, or again. Accept, when set, chooses among those.
	Project string
	Accept  func(compose.Container) bool
	// Stay keeps following, also while no container runs, until the context is done.
	Stay bool
	// Ended, when set, is told when a container has ended and all its lines were given.
	Ended func(compose.Container, End)
}

// End is how a container ended.
type End struct {
	Code int
	// Restarting: its restart policy starts it again. Removed: it is gone, and Code is not known.
	Restarting, Removed bool
}

// LogLine is one line of a container's output.
type LogLine struct {
	Container compose.Container
	// Time is the engine's; zero where the container's logging driver keeps no lines.
	Time   time.Time
	Stderr bool
	Text   string
}

// Logs gives the lines of several containers to f, one call at a time: ordered by time, or as they come with Follow. Containers that are
// gone meanwhile are left out. With Follow it ends without an error when all containers have ended (see Stay).
func (c *Client) Logs(ctx context.Context, containers []compose.Container, o LogsOptions, f func(LogLine)) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if o.Follow {
		return c.follow(ctx, api, containers, o, f)
	}
	return c.mergeLogs(ctx, api, containers, o, f)
}

// mergeLogs gives the lines of all containers in the order of their times. Each stream is in order already.
func (c *Client) mergeLogs(ctx context.Context, api *client.Client, containers []compose.Container, o LogsOptions, f func(LogLine)) error {
	ctx, cancel := context.WithCancel(ctx)
	streams := make([]chan LogLine, len(containers))
	errs := make([]error, len(containers))
	var wg sync.WaitGroup
	for i, ctr := range containers {
		streams[i] = make(chan LogLine, 16) // there may be a hundred
		wg.Go(func() {
			defer close(streams[i])
			errs[i] = c.readLogs(ctx, api, ctr, o, func(l LogLine) {
				select {
				case streams[i] <- l:
				case <-ctx.Done():
				}
			})
		})
	}
	mergeLines(streams, f)
	cancel()
	wg.Wait()
	return errors.Join(errs...)
}

// mergeLines merges ordered streams into one ordered stream, until all are closed.
func mergeLines(streams []chan LogLine, f func(LogLine)) {
	heads := make([]*LogLine, len(streams))
	next := func(i int) {
		heads[i] = nil
		if l, ok := <-streams[i]; ok {
			heads[i] = &l
		}
	}
	for i := range streams {
		next(i)
	}
	for {
		first := -1
		for i, h := range heads {
			if h != nil && (first < 0 || h.Time.Before(heads[first].Time)) {
				first = i
			}
		}
		if first < 0 {
			return
		}
		f(*heads[first])
		next(first)
	}
}

// tail returns a container's last log lines; nil if they cannot be had.
func (c *Client) tail(ctx context.Context, id string, lines int) []string {
	api, err := c.conn(ctx)
	if err != nil || lines <= 0 {
		return nil
	}
	var out []string
	err = c.readLogs(ctx, api, compose.Container{ID: id}, LogsOptions{Tail: strconv.Itoa(lines)}, func(l LogLine) { out = append(out, l.Text) })
	if err != nil {
		c.log.Debug("no log tail", "container", id, "error", err)
	}
	return out
}

// readLogs gives one container's lines to emit, from one goroutine. A container that is gone has none.
func (c *Client) readLogs(ctx context.Context, api *client.Client, ctr compose.Container, o LogsOptions, emit func(LogLine)) error {
	var answer head
	body, err := api.ContainerLogs(withHead(ctx, &answer), ctr.ID, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Timestamps: true,
		Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow,
	})
	switch {
	case gone(err), says(err, "dead or marked for removal"):
		return nil
	case o.Follow && says(err, "does not support reading"):
		return c.readAttached(ctx, api, ctr, emit)
	case err != nil:
		return fmt.Errorf("read the log of container %q: %w", ctr.Name, c.explain(err))
	}
	defer func() { _ = body.Close() }()
	raw, err := c.isRaw(ctx, api, ctr.ID, answer.contentType)
	if err != nil {
		return err
	}
	if err := demultiplex(body, raw, ctr, true, emit); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the log of container %q: %w", ctr.Name, err)
	}
	return ctx.Err()
}

// readAttached gives what a container writes from now on, for logging drivers that keep nothing to read.
func (c *Client) readAttached(ctx context.Context, api *client.Client, ctr compose.Container, emit func(LogLine)) error {
	r, err := api.ContainerInspect(ctx, ctr.ID, client.ContainerInspectOptions{})
	if err != nil {
		return c.explain(err)
	}
	conn, err := api.ContainerAttach(ctx, ctr.ID, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return fmt.Errorf("attach to container %q: %w", ctr.Name, c.explain(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	if err := demultiplex(conn.Reader, r.Container.Config.Tty, ctr, false, emit); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the output of container %q: %w", ctr.Name, err)
	}
	return ctx.Err()
}

// demultiplex splits a stream of the engine into lines. With timed, each of its messages begins with a time: every frame of a
// multiplexed stream, every line of a raw one.
func demultiplex(r io.Reader, raw bool, ctr compose.Container, timed bool, emit func(LogLine)) error {
	out := newFrames(LogLine{Container: ctr}, timed, emit)
	if raw {
		lines := &lineWriter{line: out.line}
		_, err := io.Copy(lines, r)
		lines.flush()
		return err
	}
	errOut := newFrames(LogLine{Container: ctr, Stderr: true}, timed, emit)
	err := splitFrames(out, errOut, r)
	out.lines.flush()
	errOut.lines.flush()
	return err
}

// splitFrames gives each frame of a multiplexed stream to one of two writers, in one piece, until the stream ends; the engine may end it anywhere.
// stdcopy does the same with a buffer of 40 kB to begin with, of which logs of many containers would need as many.
func splitFrames(out, errOut io.Writer, r io.Reader) error {
	var header [8]byte // which stream, three bytes of nothing, how long the frame is
	var frame bytes.Buffer
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return endOfFrames(err)
		}
		frame.Reset()
		if _, err := io.CopyN(&frame, r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return endOfFrames(err)
		}
		to := out
		switch stdcopy.StdType(header[0]) {
		case stdcopy.Stdin, stdcopy.Stdout:
		case stdcopy.Stderr:
			to = errOut
		case stdcopy.Systemerr:
			return fmt.Errorf("the engine says: %s", &frame)
		default:
			return fmt.Errorf("a frame of a stream %d, which is not known", header[0])
		}
		if _, err := to.Write(frame.Bytes()); err != nil {
			return err
		}
	}
}

func endOfFrames(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// frames makes lines of a stream's frames. A line may come in several frames, each with a time of its own: the first one counts.
type frames struct {
	next  LogLine
	timed bool
	emit  func(LogLine)
	lines lineWriter
}

func newFrames(blank LogLine, timed bool, emit func(LogLine)) *frames {
	f := &frames{next: blank, timed: timed, emit: emit}
	f.lines.line = func(text []byte) {
		f.next.Text = string(text)
		f.emit(f.next)
	}
	return f
}

// Write takes one frame.
func (f *frames) Write(frame []byte) (int, error) {
	when, text := f.cut(frame)
	if len(f.lines.rest) == 0 {
		f.next.Time = when
	}
	_, err := f.lines.Write(text)
	return len(frame), err
}

// line takes one line of a raw stream.
func (f *frames) line(line []byte) {
	var text []byte
	f.next.Time, text = f.cut(line)
	f.next.Text = string(text)
	f.emit(f.next)
}

// cut takes the time off the beginning.
func (f *frames) cut(b []byte) (time.Time, []byte) {
	if !f.timed {
		return time.Time{}, b
	}
	stamp, text, ok := bytes.Cut(b, []byte(" "))
	if !ok {
		return time.Time{}, b
	}
	when, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return time.Time{}, b
	}
	return when, text
}

// head is what the API client keeps to itself of a response: whether a stream has begun, and what it is.
type head struct {
	status      int
	contentType string
}

// headKey finds the place for a response's head in its request's context.
type headKey struct{}

func withHead(ctx context.Context, to *head) context.Context {
	return context.WithValue(ctx, headKey{}, to)
}

// keepHead fills the place that withHead made.
func keepHead(r *http.Response) {
	if r.Request == nil {
		return
	}
	if to, ok := r.Request.Context().Value(headKey{}).(*head); ok {
		*to = head{status: r.StatusCode, contentType: r.Header.Get("Content-Type")}
	}
}

// isRaw reports whether a container's streams are raw (it has a terminal) rather than multiplexed. Older engines do not say so in the
// answer, and are asked.
func (c *Client) isRaw(ctx context.Context, api *client.Client, id, contentType string) (bool, error) {
	if contentType == types.MediaTypeMultiplexedStream {
		return false, nil
	}
	if !versions.LessThan(api.ClientVersion(), "1.42") && contentType == types.MediaTypeRawStream {
		return true, nil
	}
	r, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return false, c.explain(err)
	}
	return r.Container.Config != nil && r.Container.Config.Tty, nil
}
