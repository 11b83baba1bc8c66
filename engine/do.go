// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// task is one operation being done.
type task struct {
	*Client
	api *client.Client
	op  compose.Op
	// id is what the operation acts on, resolved.
	id   string
	made compose.Results
	sink compose.Sink
}

// Do implements [compose.Engine]. An operation whose aim is reached already succeeds: a container that is to be removed and is gone,
// a network that somebody else just created for the same project.
func (c *Client) Do(ctx context.Context, op compose.Op, made compose.Results, sink compose.Sink) (compose.Result, error) {
	api, err := c.conn(ctx)
	if err != nil {
		return compose.Result{}, err
	}
	t := &task{Client: c, api: api, op: op, id: made.Resolve(op.Ref), made: made, sink: sink}
	do := t.maker()
	if do == nil {
		act := t.actor()
		if act == nil {
			return compose.Result{}, fmt.Errorf("unknown operation %q", op.Kind)
		}
		if t.id == "" && op.Ref.Op != 0 {
			return compose.Result{}, fmt.Errorf("operation %d, which makes what this one needs, has no result", op.Ref.Op)
		}
		do = func(ctx context.Context) (compose.Result, error) { return compose.Result{ID: t.id}, act(ctx) }
	}
	r, err := do(ctx)
	return r, c.explain(err)
}

// maker returns the function for operations that make something.
func (t *task) maker() func(context.Context) (compose.Result, error) {
	switch t.op.Kind {
	case compose.OpPullImage:
		return t.pullImage
	case compose.OpBuildImage:
		return t.buildImage
	case compose.OpCreateNetwork:
		return t.createNetwork
	case compose.OpCreateVolume:
		return t.createVolume
	case compose.OpCreateContainer:
		return t.createContainer
	}
	return nil
}

// actor returns the function for operations on something that exists.
func (t *task) actor() func(context.Context) error {
	switch t.op.Kind {
	case compose.OpRemoveImage:
		return t.removeImage
	case compose.OpRemoveNetwork:
		return t.removeNetwork
	case compose.OpRemoveVolume:
		return t.removeVolume
	case compose.OpCopyFiles:
		return t.copyFiles
	case compose.OpStartContainer:
		return t.startContainer
	case compose.OpStopContainer:
		return t.stopContainer
	case compose.OpRestartContainer:
		return t.restartContainer
	case compose.OpKillContainer:
		return t.killContainer
	case compose.OpPauseContainer:
		return t.pauseContainer
	case compose.OpUnpauseContainer:
		return t.unpauseContainer
	case compose.OpRenameContainer:
		return t.renameContainer
	case compose.OpRemoveContainer:
		return t.removeContainer
	case compose.OpRunHook:
		return t.runHook
	}
	return nil
}

// progress tells of the operation's progress.
func (t *task) progress(e compose.Event) {
	e.Kind, e.Op = compose.EventProgress, t.op
	t.sink.Event(e)
}

// warn tells of something that is not right and stops nothing.
func (t *task) warn(text string) {
	t.sink.Event(compose.Event{Kind: compose.EventWarning, Op: t.op, Text: text})
}

// buildImage builds, and asks the engine for the ID: which digest identifies an image depends on its image store.
func (t *task) buildImage(ctx context.Context) (compose.Result, error) {
	b, err := t.builder()
	if err != nil {
		return compose.Result{}, err
	}
	spec := *t.op.Build
	r, err := b.Build(ctx, spec, func(detail any) { t.progress(compose.Event{Detail: detail}) })
	if err != nil {
		return r, err
	}
	if len(spec.Tags) > 0 {
		found, err := inspectImage(ctx, t.api, spec.Tags[0])
		switch {
		case err == nil:
			r.ID = found.ID
		case !gone(err):
			return r, err
		}
	}
	return r, nil
}

// vanishing are the pauses between attempts at something that is in use by what is just vanishing: the engine tells of no event at
// its end. Together they bound the wait.
var vanishing = []time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
	800 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second,
}

// persist repeats try while busy says that its error may pass, with pauses in between. It returns try's last error.
func persist(ctx context.Context, try func() error, busy func(error) bool) error {
	err := try()
	for _, pause := range vanishing {
		if err == nil || !busy(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		err = try()
	}
	return err
}
