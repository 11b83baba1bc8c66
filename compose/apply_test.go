// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scriptEngine carries out operations by calling a function.
type scriptEngine struct {
	do func(ctx context.Context, op Op, made Results) (Result, error)
}

func (s scriptEngine) Observe(context.Context, Query) (Snapshot, error) { return Snapshot{}, nil }

func (s scriptEngine) Do(ctx context.Context, op Op, made Results, _ Sink) (Result, error) {
	return s.do(ctx, op, made)
}

func (s scriptEngine) Await(ctx context.Context, id string, c Condition) error {
	_, err := s.do(ctx, Op{Kind: OpAwait, Target: "container " + id, Condition: c}, nil)
	return err
}

// recorder is a sink that writes events down as "kind id".
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Event(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf("%s %d", e.Kind, e.Op.ID))
}

func (r *recorder) of(id int) string {
	var kinds []string
	for _, e := range r.events {
		if kind, n, _ := strings.Cut(e, " "); n == fmt.Sprint(id) {
			kinds = append(kinds, kind)
		}
	}
	return strings.Join(kinds, " ")
}

var errBroken = errors.New("broken")

// breaking fails the operations with the given IDs.
func breaking(broken ...int) scriptEngine {
	return scriptEngine{func(_ context.Context, op Op, _ Results) (Result, error) {
		if slices.Contains(broken, op.ID) {
			return Result{}, errBroken
		}
		return Result{ID: fmt.Sprintf("made by %d", op.ID)}, nil
	}}
}

func op(id int, needs ...int) Op {
	return Op{ID: id, Kind: OpCreateVolume, Target: fmt.Sprintf("volume v%d", id), Needs: needs}
}

func TestApplyOutcomes(t *testing.T) {
	optional, after, fallback := op(1), op(2), op(2)
	optional.BestEffort = true
	after.After = []int{1}
	fallback.Fallback = 1
	const done, failed, skipped = "queued started done", "queued started failed", "queued skipped"
	for name, c := range map[string]struct {
		ops    []Op
		broken []int
		events []string // by operation
		failed []int    // operations in the error
	}{
		"all is well":                          {[]Op{op(1), op(2, 1), op(3, 1, 2)}, nil, []string{done, done, done}, nil},
		"what needs a failure is skipped":      {[]Op{op(1), op(2, 1), op(3, 2)}, []int{1}, []string{failed, skipped, skipped}, []int{1}},
		"what does not goes on":                {[]Op{op(1), op(2), op(3, 2)}, []int{1}, []string{failed, done, done}, []int{1}},
		"all failures are told":                {[]Op{op(1), op(2), op(3, 1, 2)}, []int{1, 2}, []string{failed, failed, skipped}, []int{1, 2}},
		"a best effort fails nothing":          {[]Op{optional, op(2, 1)}, []int{1}, []string{failed, done}, nil},
		"a skipped best effort fails nothing":  {[]Op{op(1), {ID: 2, Kind: OpCreateVolume, Target: "volume v2", Needs: []int{1}, BestEffort: true}, op(3, 2)}, []int{1}, []string{failed, skipped, done}, []int{1}},
		"after a failure":                      {[]Op{op(1), after}, []int{1}, []string{failed, done}, []int{1}},
		"the fallback of a failure":            {[]Op{optional, fallback, op(3, 2)}, []int{1}, []string{failed, done, done}, nil},
		"the fallback of a success":            {[]Op{optional, fallback, op(3, 2)}, nil, []string{done, skipped, done}, nil},
		"both the first and the fallback fail": {[]Op{optional, fallback, op(3, 2)}, []int{1, 2}, []string{failed, failed, skipped}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			err := Apply(t.Context(), Plan{Ops: c.ops}, breaking(c.broken...), &r, ApplyOptions{})
			for i, want := range c.events {
				if got := r.of(i + 1); got != want {
					t.Errorf("#%d: got events %q, want %q", i+1, got, want)
				}
			}
			if got := failures(err); !slices.Equal(got, c.failed) {
				t.Errorf("the error names %v, want %v: %v", got, c.failed, err)
			}
			if len(c.failed) > 0 && !errors.Is(err, errBroken) {
				t.Errorf("the cause is lost: %v", err)
			}
		})
	}
}

// failures lists the operations that an error of Apply names.
func failures(err error) []int {
	var ids []int
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, e := range joined.Unwrap() {
		var failed *OpError
		if errors.As(e, &failed) {
			ids = append(ids, failed.Op.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestApplyResults checks that operations get the results of what they need, those of a skipped fallback included.
func TestApplyResults(t *testing.T) {
	optional, fallback := op(1), op(2)
	optional.BestEffort, fallback.Fallback = true, 1
	var got Results
	engine := breaking()
	inner := engine.do
	engine.do = func(ctx context.Context, o Op, made Results) (Result, error) {
		if o.ID == 3 {
			got = made
		}
		return inner(ctx, o, made)
	}
	if err := Apply(t.Context(), Plan{Ops: []Op{optional, fallback, op(3, 2)}}, engine, Discard, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.Resolve(Ref{Op: 2}) != "made by 1" || got.Resolve(Ref{ID: "x"}) != "x" {
		t.Errorf("got results %v", got)
	}
}

// TestApplyBounds counts how many operations are under way at once.
func TestApplyBounds(t *testing.T) {
	for _, c := range []struct {
		kind     OpKind
		parallel int
		want     int
	}{
		{OpCreateVolume, 0, 8}, {OpCreateVolume, 3, 3}, {OpStopContainer, 0, 64}, {OpStopContainer, 3, 3}, {OpAwait, 3, 100},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.kind, c.parallel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				active, most := 0, 0
				engine := scriptEngine{func(context.Context, Op, Results) (Result, error) {
					mu.Lock()
					active++
					most = max(most, active)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					active--
					mu.Unlock()
					return Result{}, nil
				}}
				var plan Plan
				for i := range 100 {
					plan.Ops = append(plan.Ops, Op{ID: i + 1, Kind: c.kind})
				}
				if err := Apply(t.Context(), plan, engine, Discard, ApplyOptions{Parallel: c.parallel}); err != nil {
					t.Error(err)
				}
				if most != c.want {
					t.Errorf("%d at once, want %d", most, c.want)
				}
			})
		})
	}
}

// TestApplyCancelled: what is under way is waited for, nothing more is started, and the cause is told once.
func TestApplyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the user has had enough")
	var r recorder
	engine := scriptEngine{func(ctx context.Context, op Op, _ Results) (Result, error) {
		if op.ID == 1 {
			cancel(cause)
			<-ctx.Done()
			return Result{}, fmt.Errorf("create: %w", ctx.Err())
		}
		return Result{}, nil
	}}
	optional := op(4, 1)
	optional.BestEffort = true
	err := Apply(ctx, Plan{Ops: []Op{op(1), op(2, 1), op(3, 2), optional, op(5, 4)}}, engine, &r, ApplyOptions{Parallel: 1})
	if !errors.Is(err, cause) || len(failures(err)) > 0 {
		t.Errorf("got error %v", err)
	}
	for id, want := range map[int]string{1: "queued started failed", 2: "queued skipped", 3: "queued skipped", 4: "queued skipped", 5: "queued skipped"} {
		if got := r.of(id); got != want {
			t.Errorf("#%d: got events %q, want %q", id, got, want)
		}
	}
}

// TestApplyCancelledBefore: nothing is done at all.
func TestApplyCancelledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	engine := scriptEngine{func(context.Context, Op, Results) (Result, error) {
		t.Error("something was done")
		return Result{}, nil
	}}
	err := Apply(ctx, Plan{Ops: []Op{op(1), op(2, 1)}}, engine, Discard, ApplyOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if err := Apply(ctx, Plan{}, engine, Discard, ApplyOptions{}); err != nil {
		t.Errorf("an empty plan gave %v", err)
	}
}

func TestOpError(t *testing.T) {
	err := &OpError{Op{ID: 3, Kind: OpStartContainer, Target: "container app-web-1"}, &AwaitError{Container: "app-db-1", Service: "db", State: StateExited, ExitCode: 3}}
	if got, want := err.Error(), `start container app-web-1: container "app-db-1" exited with 3`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var hinter interface{ Hint() string }
	if !errors.As(err, &hinter) || hinter.Hint() != "dev why db" {
		t.Errorf("no hint")
	}
}

func TestAwaitError(t *testing.T) {
	for _, c := range []struct {
		err  AwaitError
		want string
	}{
		{AwaitError{Gone: true}, `container "c" was removed while something waited for it`},
		{AwaitError{NoHealthcheck: true, State: StateRunning}, `container "c" has no health check, and something waits for it to be healthy`},
		{AwaitError{State: StateRunning, Health: HealthUnhealthy}, `container "c" is unhealthy`},
		{AwaitError{State: StateRunning, Health: HealthUnhealthy, Probe: &Probe{ExitCode: 2}}, `container "c" is unhealthy: its check exits with 2`},
		{
			AwaitError{State: StateRunning, Health: HealthUnhealthy, Probe: &Probe{ExitCode: 1, Output: "\nno route\nat all\n"}},
			`container "c" is unhealthy: its check exits with 1: no route`,
		},
		{AwaitError{State: StateExited, ExitCode: 137, OOMKilled: true}, `container "c" ran out of memory and was killed`},
		{AwaitError{State: StateRestarting, ExitCode: 1}, `container "c" exited with 1 and is being restarted`},
		{AwaitError{State: StateExited, ExitCode: 1}, `container "c" exited with 1`},
		{AwaitError{State: StateCreated, Reason: "exec: not found"}, `container "c": exec: not found`},
		{AwaitError{State: StateDead}, `container "c" is dead`},
	} {
		c.err.Container = "c"
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	err := AwaitError{Service: "db", NoHealthcheck: true}
	if want := `add a healthcheck to service "db", or depend on it with condition: service_started`; err.Hint() != want {
		t.Errorf("got hint %q", err.Hint())
	}
}
