// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// follower follows the logs of several containers. One goroutine (run) owns its state; one per container reads.
type follower struct {
	*Client
	api *client.Client
	o   LogsOptions

	emit    sync.Mutex // serialises the calls of line and Ended
	line    func(LogLine)
	readers sync.WaitGroup
	ended   chan *followed

	known map[string]*followed // by container ID
	// following counts the logs being read, restarting the containers whose next start is awaited.
	following  int
	restarting map[string]bool
	errs       []error
}

// followed is one container whose log is or was followed.
type followed struct {
	compose.Container
	reading bool
	// again: it started again while its log was still being read.
	again bool

	// What the reader found, for run to look at when it is done.
	err  error
	last time.Time // of the last line
	now  runState

	// resumed counts how often the log of the run that started at run ended although the run went on.
	run     time.Time
	resumed int
}

// maxResumes bounds how often the log of one run is taken up again: its end may be the engine's restart, or a logging driver's fault.
const maxResumes = 5

// runState is how a container is: its present or last run.
type runState struct {
	End
	running bool
	started time.Time
}

func (c *Client) follow(ctx context.Context, api *client.Client, containers []compose.Container, o LogsOptions, line func(LogLine)) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{
		Client: c, api: api, o: o, line: line, ended: make(chan *followed),
		known: map[string]*followed{}, restarting: map[string]bool{},
	}
	defer f.readers.Wait()
	defer cancel()
	return f.run(ctx, containers)
}

func (f *follower) run(ctx context.Context, containers []compose.Container) error {
	started, broken := f.starts(ctx)
	for _, ctr := range containers {
		f.known[ctr.ID] = &followed{Container: ctr}
		f.read(ctx, f.known[ctr.ID], f.o.Since, f.o.Tail)
	}
	for f.following+len(f.restarting) > 0 || f.o.Stay {
		select {
		case m := <-started:
			f.onEvent(ctx, m)
		case one := <-f.ended:
			f.onEnd(ctx, one)
		case err := <-broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(f.errs...)
}

// starts opens the stream of events that tell of containers to follow; without a project there is none.
func (f *follower) starts(ctx context.Context) (<-chan events.Message, <-chan error) {
	if f.o.Project == "" {
		return nil, nil
	}
	o := client.EventsListOptions{
		Since: unixTime(f.now().Add(-eventOverlap)),
		Filters: projectFilter(f.o.Project).Add("type", string(events.ContainerEventType)).
			Add("event", string(events.ActionStart), string(events.ActionDestroy)),
	}
	started, broken := make(chan events.Message), make(chan error, 1)
	f.readers.Go(func() {
		broken <- f.stream(ctx, f.api, o, nil, func(m events.Message) {
			select {
			case started <- m:
			case <-ctx.Done():
			}
		})
	})
	return started, broken
}

// onEvent follows a container that started. Events may tell of a start that is known already.
func (f *follower) onEvent(ctx context.Context, m events.Message) {
	id := m.Actor.ID
	if m.Action == events.ActionDestroy {
		delete(f.restarting, id)
		return
	}
	one := f.known[id]
	if one == nil {
		one = &followed{Container: compose.Container{
			ID: id, Name: m.Actor.Attributes["name"], Image: m.Actor.Attributes["image"], Labels: m.Actor.Attributes,
		}}
		if f.o.Accept != nil && !f.o.Accept(one.Container) {
			return
		}
		f.known[id] = one
	}
	if one.reading {
		one.again = true
		return
	}
	now := f.inspectRun(ctx, id)
	if now.Removed || now.started.Equal(one.now.started) {
		return
	}
	f.readRun(ctx, one, now)
}

// onEnd goes on with a container that runs again; else it is done with it until it starts again.
func (f *follower) onEnd(ctx context.Context, one *followed) {
	f.following--
	one.reading = false
	again := one.again && !one.now.Removed
	one.again = false
	switch {
	case one.err != nil:
		f.errs = append(f.errs, one.err)
	case again, one.now.running && f.o.Until == "" && one.mayResume():
		f.readRun(ctx, one, one.now)
	case !one.now.running:
		if f.o.Ended != nil {
			f.emit.Lock()
			f.o.Ended(one.Container, one.now.End)
			f.emit.Unlock()
		}
		if one.now.Restarting && f.o.Project != "" {
			f.restarting[one.ID] = true
		}
	}
}

// mayResume reports whether the log of a run that goes on should be read further.
func (one *followed) mayResume() bool {
	if !one.now.started.Equal(one.run) {
		one.run, one.resumed = one.now.started, 0
	}
	one.resumed++
	return one.resumed <= maxResumes
}

// readRun reads the log of a container's present run, without what was read of it before.
func (f *follower) readRun(ctx context.Context, one *followed, now runState) {
	since := now.started
	if !one.last.Before(since) {
		since = one.last.Add(time.Nanosecond)
	}
	f.read(ctx, one, unixTime(since), "")
}

// read reads a container's log until it ends.
func (f *follower) read(ctx context.Context, one *followed, since, tail string) {
	one.reading = true
	f.following++
	delete(f.restarting, one.ID)
	o := LogsOptions{Follow: true, Since: since, Until: f.o.Until, Tail: tail}
	f.readers.Go(func() {
		one.err = f.readLogs(ctx, f.api, one.Container, o, func(l LogLine) {
			f.emit.Lock()
			defer f.emit.Unlock()
			one.last = l.Time
			f.line(l)
		})
		one.now = f.inspectRun(ctx, one.ID)
		select {
		case f.ended <- one:
		case <-ctx.Done():
		}
	})
}

// inspectRun asks how a container is now; removed if it cannot be asked.
func (f *follower) inspectRun(ctx context.Context, id string) runState {
	r, err := f.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil || r.Container.State == nil {
		return runState{End: End{Removed: true}}
	}
	s := r.Container.State
	return runState{
		End:     End{Code: s.ExitCode, Restarting: s.Restarting},
		running: s.Running && !s.Restarting, started: parseTime(s.StartedAt),
	}
}
