// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// watched are the events after which a container's condition may be another one.
var watched = client.Filters{}.Add("type", string(events.ContainerEventType)).Add("event",
	string(events.ActionStart), string(events.ActionDie), string(events.ActionDestroy), string(events.ActionHealthStatus),
	string(events.ActionPause), string(events.ActionUnPause), string(events.ActionOOM))

// reconnects are the pauses before attempts to open the event stream again: an engine that restarts is back in a few seconds.
var reconnects = []time.Duration{
	0, 100 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 5 * time.Second,
	5 * time.Second, 10 * time.Second,
}

// eventOverlap is how far back a stream reaches, since the engine's clock is known to the second only. An event that comes twice does no
// harm: it is a reason to look again.
const eventOverlap = 2 * time.Second

// watcher wakes those who wait for containers, on one event stream of the engine for all of them. The stream is opened for the first one
// and stays open until the client is closed. Who is woken looks at the container itself, so that lost or repeated events, and
// gaps in the stream, cannot mislead.
type watcher struct {
	client *Client
	ctx    context.Context
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	opening chan struct{} // closed once the stream is open or failed; nil before the first waiter
	err     error         // why there is no stream
	waiting map[string]map[*waiter]struct{}
}

// waiter waits for one container.
type waiter struct {
	wake chan struct{}
}

func newWatcher(c *Client) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	return &watcher{client: c, ctx: ctx, stop: stop, waiting: map[string]map[*waiter]struct{}{}}
}

// close ends the stream and waits for its goroutine.
func (w *watcher) close() {
	w.stop()
	w.done.Wait()
}

// add registers a waiter for a container and returns once the stream is open: what happens from now on wakes it.
func (w *watcher) add(ctx context.Context, id string) (*waiter, func(), error) {
	w.mu.Lock()
	if w.opening == nil || w.failed() {
		w.open()
	}
	opening := w.opening
	one := &waiter{wake: make(chan struct{}, 1)}
	if w.waiting[id] == nil {
		w.waiting[id] = map[*waiter]struct{}{}
	}
	w.waiting[id][one] = struct{}{}
	w.mu.Unlock()

	remove := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiting[id], one)
		if len(w.waiting[id]) == 0 {
			delete(w.waiting, id)
		}
	}
	select {
	case <-opening:
	case <-ctx.Done():
		remove()
		return nil, nil, ctx.Err()
	}
	if err := w.broken(); err != nil {
		remove()
		return nil, nil, err
	}
	return one, remove, nil
}

// broken returns why there is no stream, nil while there is one.
func (w *watcher) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// failed reports whether an earlier stream failed for good. The lock is held.
func (w *watcher) failed() bool { return w.err != nil && w.ctx.Err() == nil }

// open starts the stream's goroutine. The lock is held.
func (w *watcher) open() {
	w.err = nil
	opening := make(chan struct{})
	w.opening = opening
	ready := sync.OnceFunc(func() { close(opening) })
	w.done.Go(func() {
		err := w.run(ready)
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		ready()
		w.wakeAll()
	})
}

// run reads the stream until the client is closed. It opens it again when it breaks, wakes everybody to look, and gives up when the
// engine stays away.
func (w *watcher) run(ready func()) error {
	api, err := w.client.conn(w.ctx)
	if err != nil {
		return err
	}
	opened := false
	for attempt := 0; ; attempt++ {
		err := w.read(api, func() {
			opened, attempt = true, 0
			ready()
			w.wakeAll()
		})
		switch {
		case w.ctx.Err() != nil:
			return errors.New("the client was closed")
		case !opened, attempt == len(reconnects):
			return fmt.Errorf("follow the engine's events: %w", w.client.explain(err))
		}
		w.client.log.Debug("event stream ended", "error", err, "attempt", attempt)
		timer := time.NewTimer(reconnects[attempt])
		select {
		case <-timer.C:
		case <-w.ctx.Done():
			timer.Stop()
		}
	}
}

// read opens the stream and hands its events on until it ends. The engine answers before it subscribes, so that the stream starts a
// little in the past.
func (w *watcher) read(api *client.Client, opened func()) error {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	since := w.client.now().Add(-eventOverlap)
	stream, err := openEvents(ctx, api, client.EventsListOptions{Since: unixTime(since), Filters: watched})
	if err != nil {
		return err
	}
	opened()
	for {
		select {
		case m := <-stream.Messages:
			w.wakeOne(m.Actor.ID)
		case err := <-stream.Err:
			return err
		}
	}
}

// unixTime writes a time as the API takes it: seconds and nanoseconds.
func unixTime(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + "." + fmt.Sprintf("%09d", t.Nanosecond())
}

func (w *watcher) wakeOne(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wake(w.waiting[id])
}

func (w *watcher) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, all := range w.waiting {
		wake(all)
	}
}

// wake leaves a sign; one that is not yet seen is enough for several events.
func wake(all map[*waiter]struct{}) {
	for one := range all {
		select {
		case one.wake <- struct{}{}:
		default:
		}
	}
}
