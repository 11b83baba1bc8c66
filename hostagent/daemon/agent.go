// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/fileevents"
	"github.com/seed71221737/dev/hostagent/network"
	"github.com/seed71221737/dev/hostagent/reclaim"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// agent is one run.
type agent struct {
	o     Options
	log   *slog.Logger
	state *state
	// ctx is what goroutines of the running machine watch; it ends when the machine is off.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // everything that is waited for at the end

	orders   chan order // to stop
	kills    chan order
	requests chan request // to suspend or resume
	gate     *gate
	current  atomic.Pointer[life] // nil: asleep, or not started yet

	net         atomic.Pointer[network.Network]
	link        *link
	serving     bool // sockets on the host
	engine      *client.Client
	forwards    atomic.Pointer[forwards]
	relay       network.Relay
	clockOffset atomic.Int64
	// slowLoopback: the guest could not be set up, and its loopback is reached through the link.
	slowLoopback atomic.Bool
	nudge        chan struct{} // asks for a push of the clock
	bySuspend    atomic.Bool   // the sleep was asked for, and ends when its end is
	// withContainers: some run, or would if the machine were awake. It belongs to the goroutine that serves.
	withContainers bool
	// boots is closed once the first life has nothing to restore, or could not be.
	boots     chan struct{}
	firstBoot sync.Once
	// withoutTemplate: the making of one failed so that the machine had to boot again.
	withoutTemplate bool
	own             []*ownShare
	trees           map[string]*fileevents.Watcher // by the tags of shares that the guest believes until it is told otherwise
	linkSecret      atomic.Pointer[[]byte]
	noFast          atomic.Bool // the fast link failed when the engine was last dialled

	// onLife is called in order in each life, once the guest has been told what it has to know: after each boot, and each restoration. An error fails the life;
	// what the machine can live without is a problem instead.
	onLife  []func(ctx context.Context, l *life) error
	trimmer *reclaim.Trimmer // from the first life on
	closers []closer
}

type closer struct {
	name string
	f    func() error
}

// onClose adds what undoes a step; it is called in the opposite order.
func (a *agent) onClose(name string, f func() error) { a.closers = append(a.closers, closer{name, f}) }

// close undoes everything, and waits for it.
func (a *agent) close() error {
	a.cancel()
	var errs []error
	if l := a.current.Load(); l != nil {
		errs = append(errs, l.end())
	}
	for _, c := range slices.Backward(a.closers) {
		if err := c.f(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.name, err))
		}
	}
	a.work.Wait()
	return errors.Join(errs...)
}

// lockWait is how long the run lock is waited for: who only looks whether it is held does that for an instant.
const lockWait = 5 * time.Second

// ErrRunning says that another host agent serves the machine.
var ErrRunning = errors.New("another host agent serves this machine")

// Run serves the machine until its VM is off or ctx is done, which stops it in order. It returns nil after a stop that was asked for, and
// otherwise why the machine did not start or did not go on.
func Run(ctx context.Context, o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, o.RunLock)
	if err != nil {
		return fmt.Errorf("serve machine %q: %w", o.Machine, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	a := &agent{
		o: o, log: o.Logger, state: newState(o.Machine, os.Getpid(), o.Logger),
		orders: make(chan order, 1), kills: make(chan order, 1), nudge: make(chan struct{}, 1), requests: make(chan request), gate: newGate(),
		boots: make(chan struct{}), trees: map[string]*fileevents.Watcher{},
	}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.link = newLink(a)
	a.onLife = append(a.onLife, a.giveBack, a.watchDisks)
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.serveControl(); err != nil {
		return err
	}
	if err := a.run(ctx); err != nil {
		a.state.fail(problemOf(err))
		return err
	}
	a.state.enter(hostagent.Stopped, "")
	return nil
}

func lock(ctx context.Context, path string) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	l := flock.New(path)
	if ok, err := l.TryLockContext(ctx, 50*time.Millisecond); !ok {
		if ctx.Err() != nil {
			err = ErrRunning
		}
		return nil, err
	}
	return l.Unlock, nil
}

// errStop is the cause of contexts that an order to stop has ended.
var errStop = errors.New("stopped on request")

// run starts the machine and serves it to its end.
func (a *agent) run(ctx context.Context) error {
	starting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	startErr := make(chan error, 1)
	a.work.Go(func() { startErr <- a.start(starting) })
	var o order
	var err error
	orders, ends := a.orders, ctx.Done()
	var boots chan struct{}
	var limit <-chan time.Time
	for ended := false; !ended; {
		select {
		case err = <-startErr:
			ended = true
		case o = <-a.kills:
			cancel(errStop)
		case <-boots: // there is nothing in its memory yet
			cancel(errStop)
			boots = nil
		case <-limit:
			cancel(errStop)
		case o = <-orders:
			orders, ends, boots, limit = nil, nil, a.boots, time.After(restoreWait)
		case <-ends:
			orders, ends, boots, limit = nil, nil, a.boots, time.After(restoreWait)
		}
	}
	switch {
	case err != nil && !errors.Is(err, errStop):
		return errors.Join(err, a.abandon())
	case err == nil && orders != nil && !o.kill:
		return a.serve(ctx)
	}
	return a.stop(o)
}

// restoreWait is how long an order to stop waits for a machine that is being restored: in the middle of it its containers could not be stopped.
const restoreWait = 90 * time.Second

// abandon ends a VM whose start failed.
func (a *agent) abandon() error {
	vm := a.vm()
	if vm == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	return vm.Kill(ctx)
}

// Waits of a stop after the guest had its time.
const (
	buttonWait = 15 * time.Second
	killWait   = 30 * time.Second
)

// stop ends the machine: it is killed, or put aside with its memory for an instant start, or turned off.
func (a *agent) stop(o order) error {
	a.state.enter(hostagent.Stopping, "")
	a.gate.set(reachNone, errStopping)
	switch {
	case o.kill:
		return errors.Join(a.kill(), a.drop("the machine was killed"))
	case a.vm() == nil:
		if o.cold {
			return a.drop("the machine is to boot anew")
		}
		return nil
	}
	grace, began := o.grace, time.Now()
	if grace == 0 {
		grace = a.o.StopGrace
	}
	if !o.cold {
		switch done, killed := a.putAside(grace); {
		case killed:
			return errors.Join(a.kill(), a.drop("the machine was killed"))
		case done:
			return nil
		}
		grace = max(grace-time.Since(began), min(grace, leastGrace))
	}
	return errors.Join(a.turnOff(grace), a.drop("the machine was turned off"))
}

// leastGrace is what is left to the guest of its time when saving it took the rest.
const leastGrace = 10 * time.Second

// turnOff turns the machine off: it asks the guest, presses the power button, kills, each with a deadline.
func (a *agent) turnOff(grace time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		// The link may be gone before the answer: whether it worked shows in the VM's end.
		_ = a.link.call(ctx, proto.MethodPowerOff, nil, nil)
	}()
	defer func() { cancel(); <-asked }()
	if done, killed := a.awaitEnd(grace); done || killed {
		return a.ended(killed)
	}
	a.log.Warn("the guest did not power off", "grace", grace)
	press, cancelPress := context.WithTimeout(ctx, buttonWait)
	defer cancelPress()
	if err := a.vm().PowerOff(press); err != nil {
		a.log.Warn("the power button did not work", "error", err)
		return a.kill()
	}
	done, killed := a.awaitEnd(buttonWait)
	return a.ended(killed || !done)
}

// awaitEnd waits for the VM's end, or an order to kill it.
func (a *agent) awaitEnd(limit time.Duration) (done, killed bool) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-a.vm().Done():
		return true, false
	case <-a.kills:
		return false, true
	case <-t.C:
		return false, false
	}
}

func (a *agent) ended(kill bool) error {
	if kill {
		return a.kill()
	}
	return nil // that a VM complains about its own end is of no use to who wanted it
}

func (a *agent) kill() error {
	vm := a.vm()
	if vm == nil {
		return nil
	}
	a.log.Warn("the machine is killed")
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	if err := vm.Kill(ctx); err != nil {
		return fmt.Errorf("kill the machine: %w", err)
	}
	return nil
}

// problemOf tells an error as a problem, with its hint.
func problemOf(err error) hostagent.Problem {
	p := hostagent.Problem{Code: "failed", Text: err.Error()}
	var stage *stageError
	if errors.As(err, &stage) {
		p.Code = "stage-" + string(stage.stage)
	}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		p.Hint = hint.Hint()
	}
	return p
}
