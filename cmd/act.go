// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/seed71221737/dev/compose"
)

// applyOptions say how a plan is shown while it is applied.
type applyOptions struct {
	heading               string // the command's name, above the rows
	quiet                 bool   // show no progress
	quietPull, quietBuild bool   // show no progress of these
	// also takes the events beside the progress.
	also compose.Sink
	// provide carries out what providers do; nil where the plan has none.
	provide func(ctx context.Context, op compose.Op) error
	// settled are things that the plan does not touch, shown as they are.
	settled []status
}

// apply carries a plan out, showing how it goes. What failed is in the error; the caller explains it (see explainFailure).
func (a *app) apply(ctx context.Context, e compose.Engine, plan compose.Plan, o applyOptions) error {
	p := a.startProgress(o.heading, o.quiet)
	defer p.close()
	return a.applyWith(ctx, e, plan, p, o)
}

// applyWith is apply with a progress that is open already and stays so.
func (a *app) applyWith(ctx context.Context, e compose.Engine, plan compose.Plan, p progress, o applyOptions) error {
	for _, s := range o.settled {
		p.show(s)
	}
	e = a.keepingLogs(e, plan)
	if o.provide != nil {
		e = &providingEngine{Engine: e, provide: o.provide}
	}
	return compose.Apply(ctx, plan, e, o.sink(p), compose.ApplyOptions{Parallel: max(0, a.parallel)})
}

// sink gives events to the progress, less what is to be quiet, and to also.
func (o applyOptions) sink(p progress) compose.Sink {
	return compose.SinkFunc(func(e compose.Event) {
		if o.also != nil {
			o.also.Event(e)
		}
		quiet := o.quietPull && e.Op.Kind == compose.OpPullImage || o.quietBuild && e.Op.Kind == compose.OpBuildImage
		if quiet && e.Kind == compose.EventProgress {
			return
		}
		p.Event(e)
	})
}

// warnAll shows the warnings of a plan or a project.
func (a *app) warnAll(warnings []compose.Warning) {
	for _, w := range warnings {
		a.warn(w.String())
	}
}

// say tells the user something, above live progress if there is any. It is talk: it goes to stderr.
func (a *app) say(text string) {
	a.mu.Lock()
	live := a.live
	a.mu.Unlock()
	write := func() { fmt.Fprintln(a.err, text) }
	switch {
	case a.progressName == "json":
		(&jsonProgress{out: a.err}).write(jsonStatus{Text: text})
	case live != nil:
		live.above(write)
	default:
		write()
	}
}

// deadline bounds a wait; the zero deadline bounds nothing.
type deadline struct {
	after time.Duration
	why   string
}

// waitDeadline is what --wait and --wait-timeout come to.
func waitDeadline(wait bool, seconds int) deadline {
	if !wait || seconds == 0 {
		return deadline{}
	}
	d := time.Duration(seconds) * time.Second
	return deadline{d, fmt.Sprintf("not all services were running and healthy within %s", d)}
}

// timeoutError is the end of a deadline.
type timeoutError string

func (e timeoutError) Error() string { return string(e) }

func (d deadline) start(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.after == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d.after, timeoutError(d.why))
}
