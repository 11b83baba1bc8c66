// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed71221737/dev/hostagent"
)

// life is one time that the machine is awake: from the start of a VM, or the restoration of one, to its end or its sleep. What is there for the guest as long as
// it runs belongs to a life; listeners on the host, which outlast its sleep, belong to the agent.
type life struct {
	vm hostagent.VM
	// restored: the guest was not booted; saved tells what is to be known of it.
	restored bool
	linked   bool // its guest's agent was reached; for who brings the life up
	up       bool // it came to where the machine can be used
	saved    Saved
	notes    notes
	mac      string    // of its network card
	template *template // to be made of it; nil: none
	shares   []*sharing
	carried  []*carrying
	prepared atomic.Bool // the first session of a guest that is set up already has been made
	// ctx ends when the guest is about to be saved, or is off.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // everything that is waited for at its end
	// starting is closed when no more containers are started again, which starts ends early.
	starting chan struct{}
	starts   context.CancelFunc

	mu      sync.Mutex
	saves   []step
	closers []closer
}

// step is something to do before the guest is saved.
type step struct {
	name string
	f    func(context.Context) error
}

func (a *agent) newLife() *life {
	l := &life{}
	l.ctx, l.cancel = context.WithCancel(a.ctx)
	return l
}

// startAgain calls f beside all else, until the life ends or endStarts is called.
func (l *life) startAgain(f func(context.Context)) {
	ctx, cancel := context.WithCancel(l.ctx)
	l.starting, l.starts = make(chan struct{}), cancel
	l.work.Go(func() {
		defer close(l.starting)
		defer cancel()
		f(ctx)
	})
}

// endStarts ends what startAgain began, and waits for it: who stops containers must not have others started behind their back.
func (l *life) endStarts(ctx context.Context) error {
	if l.starts == nil {
		return nil
	}
	l.starts()
	select {
	case <-l.starting:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for containers that are being started: %w", context.Cause(ctx))
	}
}

// onEnd adds what undoes a step of the life, after ctx has ended; it is called in the opposite order, also when the guest is saved.
func (l *life) onEnd(name string, f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, closer{name, f})
}

// beforeSave adds what has to be done while the guest still runs, before it is saved; it is called in the opposite order. An error keeps the machine awake, and
// is told.
func (l *life) beforeSave(name string, f func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saves = append(l.saves, step{name, f})
}

// prepareSave does what beforeSave added.
func (l *life) prepareSave(ctx context.Context) error {
	l.mu.Lock()
	steps := slices.Clone(l.saves)
	l.mu.Unlock()
	for _, s := range slices.Backward(steps) {
		if err := s.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// end ends the life, and waits for it. A second time does no harm.
func (l *life) end() error {
	l.cancel()
	l.mu.Lock()
	closers := l.closers
	l.closers, l.saves = nil, nil
	l.mu.Unlock()
	var errs []error
	for _, c := range slices.Backward(closers) {
		if err := c.f(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.name, err))
		}
	}
	l.work.Wait()
	return errors.Join(errs...)
}

// vm is the VM that runs, or was the last to; nil: none has been started yet, or the machine is asleep.
func (a *agent) vm() hostagent.VM {
	if l := a.current.Load(); l != nil {
		return l.vm
	}
	return nil
}

// awake waits until the machine can be used, waking it where it sleeps, and keeps it awake until release.
func (a *agent) awake(ctx context.Context) (release func(), err error) {
	v, err := a.gate.pass(ctx, reachEngine)
	if err != nil {
		return nil, err
	}
	return v.end, nil
}

// holdIfAwake keeps a machine that is awake so until release; ok is false where it is not.
func (a *agent) holdIfAwake() (release func(), ok bool) {
	v := a.gate.passAwake(reachEngine)
	if v == nil {
		return nil, false
	}
	return v.end, true
}
