// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// Event is something that happened to a project.
type Event struct {
	Time time.Time
	// Type is container, network, volume or image.
	Type string
	// Action is what happened: start, die, health_status: healthy.
	Action string
	ID     string
	// Name is the container's, network's or volume's name.
	Name string
	// Service is the container's service.
	Service string
	// Attributes are the labels and what the engine adds to them.
	Attributes map[string]string
}

// Container is the event's container, as far as the event tells of it.
func (e Event) Container() compose.Container {
	return compose.Container{ID: e.ID, Name: e.Name, Image: e.Attributes["image"], Labels: e.Attributes}
}

// ExitCode is the exit code that an event of the action "die" tells.
func (e Event) ExitCode() int {
	code, _ := strconv.Atoi(e.Attributes["exitCode"])
	return code
}

// EventsOptions say which events [Client.Events] gives.
type EventsOptions struct {
	Project string
	// Since and Until are times or durations before now; empty is from now on, and without end.
	Since, Until string
	// Types narrows them to container, network, volume or image; empty is container, which is what a project's label marks reliably.
	Types []string
	// Ready, when set, is called once, when no further event will be missed.
	Ready func()
}

// Events gives a project's events to f, one at a time, until ctx is done or Until is reached, which is no error.
func (c *Client) Events(ctx context.Context, o EventsOptions, f func(Event)) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if len(o.Types) == 0 {
		o.Types = []string{string(events.ContainerEventType)}
	}
	since := o.Since
	if since == "" {
		since = unixTime(c.now().Add(-eventOverlap))
	}
	began := c.now().Add(-time.Second)
	s := client.EventsListOptions{Since: since, Until: o.Until, Filters: projectFilter(o.Project).Add("type", o.Types...)}
	err = c.stream(ctx, api, s, o.Ready, func(m events.Message) {
		e := newEvent(m)
		if o.Since == "" && e.Time.Before(began) {
			return
		}
		f(e)
	})
	if o.Until != "" && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// stream gives events to f until the stream ends, after a call of ready, if there is one, when it has begun.
func (c *Client) stream(ctx context.Context, api *client.Client, o client.EventsListOptions, ready func(), f func(events.Message)) error {
	s, err := openEvents(ctx, api, o)
	if err != nil {
		return c.explain(err)
	}
	if ready != nil {
		ready()
	}
	for {
		select {
		case m := <-s.Messages:
			f(m)
		case err := <-s.Err:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return c.explain(err)
		}
	}
}

// openEvents opens an event stream. The API client returns before it tells of a failure; the response's status tells at once.
func openEvents(ctx context.Context, api *client.Client, o client.EventsListOptions) (client.EventsResult, error) {
	var answer head
	s := api.Events(withHead(ctx, &answer), o)
	if answer.status != http.StatusOK {
		return s, <-s.Err
	}
	return s, nil
}

func newEvent(m events.Message) Event {
	a := m.Actor.Attributes
	name := a["name"]
	if name == "" && m.Type == events.VolumeEventType {
		name = m.Actor.ID
	}
	return Event{
		Time: time.Unix(0, m.TimeNano), Type: string(m.Type), Action: strings.TrimSpace(string(m.Action)), ID: m.Actor.ID, Name: name,
		Service: a[compose.LabelService], Attributes: a,
	}
}
