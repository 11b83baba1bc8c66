// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// Attach connects the streams to a running container's until it ends, and returns its exit code as [Client.Exec] does.
func (c *Client) Attach(ctx context.Context, containerID string, s Streams) error {
	return c.attach(ctx, containerID, s, false)
}

// Run connects the streams to a created container's, starts it, and goes on as [Client.Attach] does: nothing of its output is lost.
func (c *Client) Run(ctx context.Context, containerID string, s Streams) error {
	return c.attach(ctx, containerID, s, true)
}

func (c *Client) attach(ctx context.Context, id string, streams Streams, start bool) error {
	streams, err := c.withDetachKeys(streams)
	if err != nil {
		return err
	}
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	r, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return c.explain(err)
	}
	cfg := r.Container.Config
	if !start && (r.Container.State == nil || !r.Container.State.Running) {
		return withHint(fmt.Errorf("container %q does not run", containerName([]string{r.Container.Name})), "dev start %s", cfg.Labels[compose.LabelService])
	}
	if !cfg.OpenStdin {
		streams.In = nil
	}
	conn, err := api.ContainerAttach(ctx, id, client.ContainerAttachOptions{
		Stream: true, Stdin: streams.In != nil, Stdout: true, Stderr: true, DetachKeys: streams.DetachKeys,
	})
	if err != nil {
		return c.explain(err)
	}
	s := &session{Streams: streams, conn: conn.HijackedResponse, tty: cfg.Tty, resize: func(ctx context.Context, w, h uint) error {
		_, err := api.ContainerResize(ctx, id, client.ContainerResizeOptions{Width: w, Height: h})
		return err
	}}
	cond := container.WaitConditionNotRunning
	switch host := r.Container.HostConfig; {
	case start && host != nil && host.AutoRemove:
		cond = container.WaitConditionRemoved // whoever looks afterwards finds it gone
	case start:
		cond = container.WaitConditionNextExit
	}
	return c.attached(ctx, api, id, s, start, cond)
}

// attached waits for the exit from before the start on, so that a container that is removed at its end is not missed.
func (c *Client) attached(ctx context.Context, api *client.Client, id string, s *session, start bool, cond container.WaitCondition) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	exit := api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: cond})
	if start {
		t := &task{Client: c, api: api, id: id, sink: compose.Discard}
		if err := t.startContainer(ctx); err != nil {
			s.conn.Close()
			return c.explain(err)
		}
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	return c.exitOf(ctx, exit)
}

// exitOf turns what waiting for a container gave into an error.
func (c *Client) exitOf(ctx context.Context, exit client.ContainerWaitResult) error {
	select {
	case r := <-exit.Result:
		switch {
		case r.Error != nil && r.Error.Message != "":
			return fmt.Errorf("wait for the container: %s", r.Error.Message)
		case r.StatusCode != 0:
			return &ExitError{Code: int(r.StatusCode)}
		}
		return nil
	case err := <-exit.Error:
		return c.explain(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until a container does not run, and returns its exit code as [Client.Exec] does.
func (c *Client) Wait(ctx context.Context, containerID string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	return c.exitOf(ctx, api.ContainerWait(ctx, containerID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning}))
}

// Signal sends a signal to a container; one that does not run any more is no error.
func (c *Client) Signal(ctx context.Context, containerID, signal string) error {
	_, err := c.Do(ctx, compose.Op{Kind: compose.OpKillContainer, Ref: compose.Ref{ID: containerID}, Signal: signal}, nil, compose.Discard)
	return err
}
