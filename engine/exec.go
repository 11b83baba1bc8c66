// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"

	"github.com/moby/moby/client"
)

// ExecOptions are a command to run in a container that runs.
type ExecOptions struct {
	Command          []string
	User, WorkingDir string
	Env              []string
	Privileged       bool
	// TTY gives the command a terminal; Streams.Err is not used then.
	TTY bool
	// Detach starts the command and leaves it.
	Detach bool
	Streams
}

// errStillRuns tells that a command's output ended and its exit code is not there yet.
var errStillRuns = errors.New("the command still runs")

// Exec runs a command in a container until it ends. An exit code other than 0 is an [*ExitError]; [ErrDetached] if the user left.
func (c *Client) Exec(ctx context.Context, containerID string, o ExecOptions) error {
	streams, err := c.withDetachKeys(o.Streams)
	if err != nil {
		return err
	}
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	size := streams.consoleSize(o.TTY)
	created, err := api.ExecCreate(ctx, containerID, client.ExecCreateOptions{
		User: o.User, Privileged: o.Privileged, TTY: o.TTY, ConsoleSize: size, Env: o.Env, WorkingDir: o.WorkingDir, Cmd: o.Command,
		AttachStdin: streams.In != nil && !o.Detach, AttachStdout: !o.Detach, AttachStderr: !o.Detach, DetachKeys: streams.DetachKeys,
	})
	if err != nil {
		return c.explain(err)
	}
	if o.Detach {
		_, err := api.ExecStart(ctx, created.ID, client.ExecStartOptions{Detach: true, TTY: o.TTY, ConsoleSize: size})
		return c.explain(err)
	}
	conn, err := api.ExecAttach(ctx, created.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: size})
	if err != nil {
		return c.explain(err)
	}
	s := &session{Streams: streams, conn: conn.HijackedResponse, tty: o.TTY, resize: func(ctx context.Context, w, h uint) error {
		_, err := api.ExecResize(ctx, created.ID, client.ExecResizeOptions{Width: w, Height: h})
		return err
	}}
	if err := s.run(ctx); err != nil {
		return err
	}
	return c.execResult(ctx, api, created.ID)
}

// execResult asks for a command's exit code. The output may end a moment before the engine knows it.
func (c *Client) execResult(ctx context.Context, api *client.Client, id string) error {
	var code int
	err := persist(ctx, func() error {
		r, err := api.ExecInspect(ctx, id, client.ExecInspectOptions{})
		if err != nil {
			return c.explain(err)
		}
		if r.Running {
			return errStillRuns
		}
		code = r.ExitCode
		return nil
	}, func(err error) bool { return errors.Is(err, errStillRuns) })
	switch {
	case errors.Is(err, errStillRuns):
		return nil // it closed its output and goes on in the background
	case err != nil:
		return err
	case code != 0:
		return &ExitError{Code: code}
	}
	return nil
}
