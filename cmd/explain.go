// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build"
)

// failures remembers what a plan did and did not do, for the account when it fails. It is a sink.
type failures struct {
	mu     sync.Mutex
	failed []failure
	// stopped are the operations that were under way when the command was cancelled or ran out of time.
	stopped []compose.Op
	done    []string // targets, in order of their last success
	skipped []string
}

type failure struct {
	op  compose.Op
	err error
}

// Event notes how operations end.
func (f *failures) Event(e compose.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case e.Kind == compose.EventDone && e.Op.Kind != compose.OpAwait:
		if !slices.Contains(f.done, e.Op.Target) {
			f.done = append(f.done, e.Op.Target)
		}
	case e.Kind == compose.EventSkipped && e.Text == "":
		if !slices.Contains(f.skipped, e.Op.Target) {
			f.skipped = append(f.skipped, e.Op.Target)
		}
	case e.Kind == compose.EventFailed && (errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded)):
		f.stopped = append(f.stopped, e.Op)
	case e.Kind == compose.EventFailed && !e.Op.BestEffort:
		f.failed = append(f.failed, failure{e.Op, e.Err})
	}
}

// applyAndExplain applies a plan, and explains what failed.
func (a *app) applyAndExplain(ctx context.Context, e *engine.Client, p *types.Project, plan compose.Plan, o applyOptions) error {
	f := &failures{}
	o.also = f
	err := a.apply(ctx, e, plan, o)
	return a.explainFailure(ctx, e, p, f, err)
}

// explainFailure says what of a plan failed and why, with the failing containers' last lines, and what was done all the same. The
// error it returns has nothing left to show.
func (a *app) explainFailure(ctx context.Context, e *engine.Client, p *types.Project, f *failures, err error) error {
	var timeout timeoutError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &timeout) || errors.As(context.Cause(ctx), &timeout):
		a.printError(timeout)
		a.explainServices(context.WithoutCancel(ctx), e, p, f.stopped)
		return exitStatus(exitError)
	case len(f.failed) == 0:
		if ctx.Err() != nil && len(f.done) > 0 {
			a.say("Interrupted. What was done stays.")
		}
		return err
	}
	for _, x := range f.failed {
		a.explain(x)
	}
	f.account(a)
	if code, ok := errors.AsType[coder](err); ok {
		return exitStatus(code.ExitCode())
	}
	return exitStatus(exitError)
}

// explain shows a failure with all that is known of it: its error and hint, the last health check, the container's last lines.
func (a *app) explain(x failure) {
	err := fmt.Errorf("%s: %w", x.op, x.err)
	await, waited := errors.AsType[*compose.AwaitError](x.err)
	_, built := errors.AsType[*build.Error](x.err)
	switch {
	case waited && x.op.Reason != "":
		err = fmt.Errorf("%w (%s)", x.err, x.op.Reason)
	case waited || built: // they name the service themselves
		err = x.err
	}
	if !waited {
		a.printError(err)
		return
	}
	if a.progressName == "json" {
		a.printErrorJSON(err, await)
		return
	}
	a.printError(err)
	a.showProbe(await.Probe)
	a.showTail(await.Container, await.Log)
}

// explainServices says why the services of operations are not as far as they should be.
func (a *app) explainServices(ctx context.Context, e *engine.Client, p *types.Project, ops []compose.Op) {
	var seen []string
	for _, op := range ops {
		if p == nil || op.Service == "" || slices.Contains(seen, op.Service) {
			continue
		}
		seen = append(seen, op.Service)
		x, err := a.why(ctx, e, p.Name, p, op.Service)
		switch {
		case err != nil: // the failure itself has been told
		case a.progressName == "json":
			_ = writeJSON(a.err, jsonOfWhy(x))
		default:
			_ = a.printWhy(a.err, x, false) // talk
		}
	}
}

// showProbe shows the last run of a health check.
func (a *app) showProbe(probe *compose.Probe) {
	if probe == nil {
		return
	}
	fmt.Fprintf(a.err, "  last check: exit code %d\n", probe.ExitCode)
	for line := range strings.Lines(strings.TrimSpace(probe.Output)) {
		fmt.Fprintln(a.err, "    | "+strings.TrimRight(line, "\n"))
	}
}

// showTail shows the last lines of a container's output.
func (a *app) showTail(container string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(a.err, "  last output of %s:\n", container)
	for _, line := range lines {
		fmt.Fprintln(a.err, "    | "+line)
	}
}

// account says what was done and what was not.
func (f *failures) account(a *app) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.progressName == "json" {
		return // the events have told
	}
	done := slices.DeleteFunc(slices.Clone(f.done), func(t string) bool {
		return slices.Contains(f.skipped, t) || slices.ContainsFunc(f.failed, func(x failure) bool { return x.op.Target == t })
	})
	if len(done) > 0 {
		fmt.Fprintln(a.err, "Done: "+listOf(done))
	}
	if len(f.skipped) > 0 {
		fmt.Fprintln(a.err, "Not done because of that: "+listOf(f.skipped))
	}
}

// listOf joins names, leaving out the end of a long list.
func listOf(names []string) string {
	const most = 8
	if more := len(names) - most; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
