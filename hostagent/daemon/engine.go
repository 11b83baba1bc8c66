// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/hostagent"
)

// dialer opens a connection to the engine.
type dialer func(ctx context.Context) (net.Conn, error)

// newEngineClient makes a client of the engine behind dial.
func newEngineClient(dial dialer) (*client.Client, error) {
	c, err := client.New(client.WithHost("http://machine"), client.WithHTTPResponseHook(boundAnswer),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }))
	if err != nil {
		return nil, fmt.Errorf("make a client of the engine: %w", err)
	}
	return c, nil
}

const (
	// maxAnswer bounds an answer of the engine's, in bytes: a machine, or who has taken it over, is not to use up the host's memory.
	maxAnswer = 64 << 20
	// maxEvent bounds one of its events, which have no end together.
	maxEvent = 1 << 20
)

// boundAnswer bounds what is read of an answer.
func boundAnswer(res *http.Response) {
	if res.Request != nil && strings.HasSuffix(res.Request.URL.Path, "/events") {
		res.Body = &boundedLines{ReadCloser: res.Body, left: maxEvent}
		return
	}
	res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
}

// boundedLines fails when too much is read without an end of line.
type boundedLines struct {
	io.ReadCloser
	left int
}

func (b *boundedLines) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		b.left = maxEvent - (n - i - 1)
	} else if b.left -= n; b.left < 0 {
		return n, fmt.Errorf("the engine tells an event of more than %d bytes", maxEvent)
	}
	return n, err
}

// startEngine waits for the engine's first answer.
func (a *agent) startEngine(ctx context.Context, l *life) error {
	if a.engine == nil {
		c, err := newEngineClient(a.dialDocker)
		if err != nil {
			return err
		}
		a.engine = c
	}
	c := a.engine
	l.onEnd("engine client", c.Close)
	for {
		_, err := c.Ping(ctx, client.PingOptions{})
		if err == nil {
			break
		}
		if ctx.Err() != nil || pause(ctx, retryPause) != nil {
			return a.engineTrouble(ctx, err)
		}
	}
	version := l.notes.Engine
	if version == "" {
		v, err := c.ServerVersion(ctx, client.ServerVersionOptions{})
		if err != nil {
			return fmt.Errorf("ask for the engine's version: %w", err)
		}
		version = hostagent.Printable(v.Version)
	}
	a.state.set(func(s *hostagent.Status) { s.Engine = version })
	return a.makeTemplate(ctx, l)
}

// engineTrouble says what the guest knows about an engine that has not answered in its time. Where the wait ended for another reason, the guest is gone.
func (a *agent) engineTrouble(ctx context.Context, err error) error {
	if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fmt.Errorf("the engine does not answer: %w", err)
	}
	asking, cancel := context.WithTimeout(a.ctx, openWait)
	defer cancel()
	h, healthErr := a.link.health(asking)
	if healthErr != nil || len(h.Problems) == 0 {
		return fmt.Errorf("the engine does not answer: %w", err)
	}
	return fmt.Errorf("the engine does not answer: %s (%w)", strings.Join(h.Problems, "; "), err)
}

const (
	// engineWait bounds one question to an engine that runs, on a machine that may be slow.
	engineWait = time.Minute
	// eventsOverlap is how far back events are asked for: the engine answers before it begins to collect them, and the guest's clock is not quite this one.
	// What is told twice does no harm, because each event has the container looked at.
	eventsOverlap = 5 * time.Second
)

// watchPorts tells about each container's published ports: those of all containers first, and after each new beginning; then what changes. removed is called
// when something was removed from the disk. It returns when the stream ends.
func watchPorts(ctx context.Context, c *client.Client, all func(map[string]containerPorts), one func(id string, p *containerPorts), removed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filters := client.Filters{}.Add("type", "container", "network", "image", "volume", "builder").
		Add("event", "start", "die", "destroy", "rename", "connect", "disconnect", "delete", "prune")
	since := strconv.FormatInt(time.Now().Add(-eventsOverlap).Unix(), 10)
	stream := c.Events(ctx, client.EventsListOptions{Filters: filters, Since: since})
	// What happens while the list is made is in the stream.
	found, err := listPorts(ctx, c)
	if err != nil {
		return err
	}
	all(found)
	for {
		select {
		case m := <-stream.Messages:
			if frees(m) {
				removed()
			}
			id, gone := concerns(m)
			if id == "" {
				continue
			}
			if gone {
				one(id, nil)
				continue
			}
			p, err := inspectPorts(ctx, c, id)
			if err != nil {
				return err
			}
			one(id, p)
		case err := <-stream.Err:
			return fmt.Errorf("follow the engine's events: %w", err)
		}
	}
}

// listPorts asks for the published ports of all containers that run.
func listPorts(ctx context.Context, c *client.Client) (map[string]containerPorts, error) {
	ask, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	list, err := c.ContainerList(ask, client.ContainerListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var mu sync.Mutex
	found := map[string]containerPorts{}
	err = each(ctx, list.Items, func(ctx context.Context, item container.Summary) error {
		p, err := inspectPorts(ctx, c, item.ID)
		if p != nil {
			mu.Lock()
			defer mu.Unlock()
			found[item.ID] = *p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// frees says whether an event is of something that was removed from the disk.
func frees(m events.Message) bool {
	return m.Type != events.NetworkEventType && (m.Action == events.ActionDestroy || m.Action == events.ActionDelete || m.Action == events.ActionPrune)
}

// concerns says which container an event is about, empty if none, and whether it is sure to have no ports after it.
func concerns(m events.Message) (id string, gone bool) {
	switch {
	case m.Type == events.NetworkEventType:
		return m.Actor.Attributes["container"], false
	case m.Type != events.ContainerEventType || m.Action == events.ActionPrune:
		return "", false
	}
	return m.Actor.ID, m.Action == events.ActionDie || m.Action == events.ActionDestroy
}

// inspectPorts asks for a container's published ports; nil when it does not run.
func inspectPorts(ctx context.Context, c *client.Client, id string) (*containerPorts, error) {
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	r, err := c.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		return nil, nil //nolint:nilnil // it is gone, and its ports with it
	}
	if err != nil {
		return nil, fmt.Errorf("look at container %q: %w", id, err)
	}
	if r.Container.State == nil || !r.Container.State.Running || r.Container.NetworkSettings == nil {
		return nil, nil
	}
	return &containerPorts{Name: strings.TrimPrefix(r.Container.Name, "/"), Ports: r.Container.NetworkSettings.Ports}, nil
}
