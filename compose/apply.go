// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
)

// ApplyOptions say how a plan is applied.
type ApplyOptions struct {
	// Parallel bounds the operations under way at once; 0: 8, and many more that mostly wait (stops, hooks). Awaits do not count.
	Parallel int
}

// The bounds when none is given. Engines are fastest at about eight operations that keep a processor busy; stopping fifty containers eight at
// a time would cost seven grace periods instead of one.
const (
	defaultParallel = 8
	defaultWaiting  = 64
)

// OpError is an operation that failed.
type OpError struct {
	Op  Op
	Err error
}

// Error names the operation before the cause.
func (e *OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Apply carries out a plan. An operation starts when all it needs has succeeded and all it comes after has ended; where something it needs failed, it is skipped, and what has nothing to
// do with the failure goes on. When ctx ends, nothing more is started, and Apply returns once what is under way has.
//
// The errors of all failed operations are joined, each an [*OpError]; those of best-effort operations are told to the sink alone. An ended context
// is in the error as its cause.
func Apply(ctx context.Context, plan Plan, engine Engine, sink Sink, o ApplyOptions) error {
	a := newApplication(plan, engine, sink, o)
	a.run(ctx)
	return a.err(ctx)
}

// application is one plan being applied. All of it belongs to the goroutine that called Apply; the others only carry out operations.
type application struct {
	engine Engine
	sink   Sink
	limit  [classes]int

	tasks    map[int]*task
	order    []*task
	ready    [classes]taskHeap
	running  [classes]int
	active   int
	finished chan outcome
	errs     []error
}

// task is an operation and how far it is.
type task struct {
	op     Op
	open   int // operations that must end before it
	next   []*task
	state  taskState
	done   bool // it was carried out, or what it stands in for was
	result Result
}

type taskState int

const (
	taskPending taskState = iota
	taskRunning
	taskSucceeded // or is as good as that
	taskFailed    // or was skipped
)

type outcome struct {
	task   *task
	result Result
	err    error
}

// class groups operations that share a bound.
type class int

const (
	classWork class = iota
	classWaiting
	classAwait
	classes
)

func classOf(k OpKind) class {
	switch k {
	case OpAwait:
		return classAwait
	case OpStopContainer, OpRestartContainer, OpRunHook, OpRunProvider:
		return classWaiting
	}
	return classWork
}

func newApplication(plan Plan, engine Engine, sink Sink, o ApplyOptions) *application {
	n := len(plan.Ops)
	a := &application{engine: engine, sink: sink, tasks: make(map[int]*task, n), finished: make(chan outcome)}
	a.limit = [classes]int{cmp.Or(o.Parallel, defaultParallel), cmp.Or(o.Parallel, defaultWaiting), n}
	for _, op := range plan.Ops {
		t := &task{op: op}
		a.tasks[op.ID] = t
		a.order = append(a.order, t)
		for _, id := range before(op) {
			if b, ok := a.tasks[id]; ok {
				b.next = append(b.next, t)
				t.open++
			}
		}
	}
	return a
}

// before lists the operations that must end before op.
func before(op Op) []int {
	all := append(append([]int{}, op.Needs...), op.After...)
	if op.Fallback != 0 {
		all = append(all, op.Fallback)
	}
	return all
}

func (a *application) run(ctx context.Context) {
	for _, t := range a.order {
		a.tell(t, Event{Kind: EventQueued})
	}
	for _, t := range a.order {
		if t.open == 0 && t.state == taskPending {
			a.dispatch(t)
		}
	}
	for {
		a.start(ctx)
		if a.active == 0 {
			break
		}
		a.finish(ctx, <-a.finished)
	}
	for _, t := range a.order { // the context ended
		if t.state == taskPending {
			a.skip(t)
		}
	}
}

// dispatch decides about a task for which everything that comes before has ended.
func (a *application) dispatch(t *task) {
	for _, id := range t.op.Needs {
		if b, ok := a.tasks[id]; ok && b.state == taskFailed {
			a.skip(t)
			return
		}
	}
	if b, ok := a.tasks[t.op.Fallback]; ok && b.done {
		t.done, t.result = true, b.result
		a.tell(t, Event{Kind: EventSkipped, Text: "not needed"})
		a.settle(t, taskSucceeded)
		return
	}
	heap.Push(&a.ready[classOf(t.op.Kind)], t)
}

// start starts ready tasks as far as the bounds allow, those of low IDs first.
func (a *application) start(ctx context.Context) {
	for c := range classes {
		for ctx.Err() == nil && a.ready[c].Len() > 0 && a.running[c] < a.limit[c] {
			t := heap.Pop(&a.ready[c]).(*task)
			t.state = taskRunning
			a.running[c]++
			a.active++
			a.tell(t, Event{Kind: EventStarted})
			go a.carryOut(ctx, t, a.made(t))
		}
	}
}

// made collects the results of what the task needs.
func (a *application) made(t *task) Results {
	made := make(Results, len(t.op.Needs))
	for _, id := range t.op.Needs {
		if b, ok := a.tasks[id]; ok {
			made[id] = b.result
		}
	}
	return made
}

// carryOut runs in a goroutine of its own.
func (a *application) carryOut(ctx context.Context, t *task, made Results) {
	out := outcome{task: t}
	if t.op.Kind == OpAwait {
		out.err = a.engine.Await(ctx, made.Resolve(t.op.Ref), t.op.Condition)
	} else {
		out.result, out.err = a.engine.Do(ctx, t.op, made, a.sink)
	}
	a.finished <- out
}

func (a *application) finish(ctx context.Context, out outcome) {
	t := out.task
	a.running[classOf(t.op.Kind)]--
	a.active--
	if out.err == nil {
		t.done, t.result = true, out.result
		a.tell(t, Event{Kind: EventDone, Result: out.result})
		a.settle(t, taskSucceeded)
		return
	}
	a.tell(t, Event{Kind: EventFailed, Err: out.err})
	if interrupted := ctx.Err() != nil && errors.Is(out.err, ctx.Err()); !t.op.BestEffort && !interrupted {
		a.errs = append(a.errs, &OpError{t.op, out.err})
	}
	a.settle(t, failure(t))
}

// failure is what a task that did not succeed counts as.
func failure(t *task) taskState {
	if t.op.BestEffort {
		return taskSucceeded
	}
	return taskFailed
}

func (a *application) skip(t *task) {
	a.tell(t, Event{Kind: EventSkipped})
	a.settle(t, failure(t))
}

// settle records that a task has ended and dispatches those that were waiting for nothing else.
func (a *application) settle(t *task, s taskState) {
	t.state = s
	for _, n := range t.next {
		if n.open--; n.open == 0 {
			a.dispatch(n)
		}
	}
}

func (a *application) tell(t *task, e Event) {
	e.Op = t.op
	a.sink.Event(e)
}

func (a *application) err(ctx context.Context) error {
	errs := a.errs
	for _, t := range a.order {
		if ctx.Err() != nil && t.state == taskFailed {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return errors.Join(errs...)
}

// taskHeap orders tasks by ID.
type taskHeap []*task

func (h taskHeap) Len() int           { return len(h) }
func (h taskHeap) Less(i, j int) bool { return h[i].op.ID < h[j].op.ID }
func (h taskHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

func (h *taskHeap) Push(t any) { *h = append(*h, t.(*task)) }

func (h *taskHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	*h = (*h)[:last]
	return t
}
