// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// request asks for a change of the machine's life that is not its end; the answer comes when it is through.
type request struct {
	suspend bool // otherwise: resume
	reply   chan error
}

// Why nobody is let in.
var (
	errStopping = errors.New("the machine is stopping")
	// errWanted ends falling asleep: somebody came.
	errWanted = errors.New("somebody uses the machine")
	// errKilled ends whatever the machine is in the middle of.
	errKilled = errors.New("killed on request")
)

// suspendedError says that the machine sleeps because it was told to.
type suspendedError struct{ machine string }

func (e *suspendedError) Error() string {
	return fmt.Sprintf("machine %q is suspended: `dev machine resume %s` wakes it", e.machine, e.machine)
}

const (
	// freezeWait bounds the guest's preparations for being saved: it writes what it has cached.
	freezeWait = 90 * time.Second
	// saveWait bounds writing the memory.
	saveWait = 4 * time.Minute
	// putAsideWait bounds both, for a stop: who waits for it has patience for this much more than the grace, and a turn-off comes after it.
	putAsideWait = 2 * time.Minute
)

// serve waits for the machine's end, or brings it about, through as many lives as it has.
func (a *agent) serve(ctx context.Context) error {
	for {
		var end bool
		var err error
		if l := a.current.Load(); l != nil {
			end, err = a.attend(ctx, l)
		} else {
			end, err = a.rest(ctx)
		}
		if end {
			return err
		}
	}
}

// attend waits for what happens to a machine that is awake, and does it; end tells that it was its end.
func (a *agent) attend(ctx context.Context, l *life) (end bool, err error) {
	var idle <-chan time.Time
	if a.canSave(l) && a.o.SleepAfter > 0 {
		t := time.NewTimer(max(time.Until(a.gate.quietSince().Add(a.o.SleepAfter)), time.Millisecond))
		defer t.Stop()
		idle = t.C
	}
	select {
	case <-l.vm.Done():
		if err := l.vm.Err(); err != nil {
			return true, fmt.Errorf("the machine ended unexpectedly: %w", err)
		}
		return true, nil // it was turned off from inside
	case o := <-a.orders:
		return true, a.stop(o)
	case o := <-a.kills:
		return true, a.stop(o)
	case <-ctx.Done():
		return true, a.stop(order{})
	case r := <-a.requests:
		if !r.suspend {
			r.reply <- nil
			return false, nil
		}
		end, err, refusal := a.suspend(ctx, l, false)
		r.reply <- errors.Join(refusal, err)
		return end, err
	case <-idle:
		if !a.closeIfIdle(ctx, l) {
			return false, nil
		}
		end, err, refusal := a.suspend(ctx, l, true)
		if refusal != nil {
			a.gate.touch() // not again at once
			a.log.Info("the machine does not fall asleep", "error", refusal)
		}
		return end, err
	}
}

// rest waits for what happens to a machine that is asleep, and does it.
func (a *agent) rest(ctx context.Context) (end bool, err error) {
	wake := a.gate.wake
	if a.bySuspend.Load() {
		wake = nil // who comes is told
	}
	reply := make(chan error, 1)
	var then *order
	select {
	case <-wake:
	case r := <-a.requests:
		if r.suspend {
			a.holdAsleep()
			r.reply <- nil
			return false, nil
		}
		reply = r.reply
	case o := <-a.orders:
		if !o.cold && !a.withContainers {
			return true, a.stop(o) // it is as a stopped machine is
		}
		then = &o
	case o := <-a.kills:
		return true, a.stop(o)
	case <-ctx.Done():
		a.state.enter(hostagent.Stopping, "")
		return true, nil // it stays as it is
	}
	killed, err := a.resume(ctx)
	reply <- err
	switch {
	case killed:
		return true, a.stop(order{kill: true})
	case err != nil:
		return true, errors.Join(err, a.abandon())
	case then != nil:
		return true, a.stop(*then)
	}
	return false, nil
}

// holdAsleep has a machine that has fallen asleep stay so until it is resumed.
func (a *agent) holdAsleep() {
	a.bySuspend.Store(true)
	a.gate.set(reachNone, &suspendedError{a.o.Machine})
	a.state.set(func(s *hostagent.Status) { s.Asleep = false })
}

// canSave says whether the life's memory can be saved.
func (a *agent) canSave(l *life) bool {
	_, ok := l.vm.(hostagent.Suspender)
	return ok && a.o.Memory != nil && l.up
}

// killable does a part of the machine's life, which a kill ends early: also one that waits for the VM. interrupt ends it as well, as far as it can be undone; nil:
// nothing does.
func (a *agent) killable(ctx context.Context, interrupt <-chan struct{}, do func(context.Context) error) (killed bool, err error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	for {
		select {
		case err := <-done:
			return false, err
		case <-interrupt:
			cancel(errWanted)
			defer signal(a.gate.wake) // in case that it was too late
			interrupt = nil
		case <-a.kills:
			cancel(errKilled)
			return true, errors.Join(a.kill(), <-done)
		}
	}
}

// closeIfIdle closes the gate if the machine has not been used for long enough.
func (a *agent) closeIfIdle(ctx context.Context, l *life) bool {
	if time.Since(a.gate.quietSince()) < a.o.SleepAfter {
		return false
	}
	if a.busy() || !a.gate.closeIfQuiet() {
		a.gate.touch()
		return false
	}
	if a.o.SleepContainers {
		return true
	}
	// The engine has the last word: a container may be about to start again.
	ask, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	list, err := a.engine.ContainerList(ask, client.ContainerListOptions{})
	if err != nil || len(list.Items) > 0 {
		a.gate.set(reachEngine, nil)
		a.gate.touch()
		return false
	}
	return true
}

// busy says whether the machine has something to do, though nobody on the host uses it.
func (a *agent) busy() bool {
	f := a.forwards.Load()
	if f == nil || a.state.has("engine") || a.state.has("host-disk") {
		return true // who knows
	}
	running := f.running()
	return running > 0 && (!a.o.SleepContainers || a.net.Load().Outbound() > 0)
}

// suspend saves the machine and lets it sleep; idle tells that nobody asked for it. The refusal is why it goes on instead; err, with end, why it cannot.
func (a *agent) suspend(ctx context.Context, l *life, idle bool) (end bool, err, refusal error) {
	if !a.canSave(l) {
		return false, nil, errors.New("this machine's memory cannot be saved: its driver is not able to")
	}
	if a.state.has("host-disk") {
		return false, nil, errors.New("the machine stands still, as this host's disk is full: free room first")
	}
	var interrupt <-chan struct{}
	if idle {
		interrupt = a.gate.wake
	} else {
		a.gate.set(reachNone, nil)
	}
	a.state.enter(hostagent.Suspending, "")
	killed, refusal := a.killable(ctx, interrupt, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, saveWait)
		defer cancel()
		return a.save(ctx, l, saving{suspended: true, idle: idle})
	})
	switch {
	case killed:
		return true, a.stop(order{kill: true}), nil
	case refusal == nil:
		a.fallAsleep(idle)
		return false, nil, nil
	}
	a.log.Warn("the machine's memory was not saved", "error", refusal)
	killed, err = a.killable(ctx, nil, func(ctx context.Context) error { return a.goOn(ctx, l) })
	if killed {
		return true, a.stop(order{kill: true}), refusal
	}
	if err != nil {
		return true, errors.Join(err, a.abandon()), refusal
	}
	return false, nil, refusal
}

// fallAsleep notes that there is no VM any more.
func (a *agent) fallAsleep(idle bool) {
	a.state.set(func(s *hostagent.Status) { s.VMPID, s.Asleep = 0, idle })
	a.bySuspend.Store(false)
	if !idle {
		a.holdAsleep()
	}
	a.state.enter(hostagent.Suspended, "")
}

// saving says what a life's memory is saved for.
type saving struct {
	suspended bool // its containers go on with it; otherwise they have been stopped
	idle      bool // nobody asked for it
}

// save saves a life's memory and ends it. After an error the life has ended all the same, and its VM may or may not run; see goOn.
func (a *agent) save(ctx context.Context, l *life, s saving) error {
	file, still, err := a.o.Memory.New(ctx)
	if err != nil {
		return errors.Join(err, l.end())
	}
	if err := a.freeze(ctx, l); err != nil {
		return errors.Join(err, l.end())
	}
	if s.suspended { // only now: nobody from outside starts or stops any after this
		a.withContainers = a.containersRun(ctx)
	}
	if s.idle && a.withContainers && !a.o.SleepContainers {
		return errors.Join(errors.New("a container has been started"), l.end())
	}
	if err := l.end(); err != nil {
		a.log.Warn("end what served the machine", "error", err)
	}
	noted, err := json.Marshal(a.noteLife(l))
	if err != nil {
		return err
	}
	a.net.Load().Quiesce()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	suspender, _ := l.vm.(hostagent.Suspender) // canSave has looked
	if err := suspender.Suspend(ctx, file, still); err != nil {
		return fmt.Errorf("save the machine's memory: %w", err)
	}
	a.current.Store(nil)
	commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveWait)
	defer cancel()
	if err := a.o.Memory.Commit(commit, Saved{Suspended: s.suspended && a.withContainers, Notes: noted}); err != nil {
		// The VM is gone, and its disk is as after a power cut with nothing left to write: the next life boots.
		a.state.say("the saved memory is lost, and the machine will boot: " + err.Error())
		return a.drop(err.Error())
	}
	return nil
}

// containersRun says whether containers run in a guest that is ready for being saved. An engine that does not say so is taken at its last word.
func (a *agent) containersRun(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	list, err := a.engine.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		a.log.Warn("list the containers that are saved", "error", err)
		f := a.forwards.Load()
		return f == nil || f.running() > 0
	}
	return len(list.Items) > 0
}

// freeze has the guest ready for being saved.
func (a *agent) freeze(ctx context.Context, l *life) error {
	ctx, cancel := context.WithTimeout(ctx, freezeWait)
	defer cancel()
	ctx, end := whileItRuns(ctx, l.vm)
	defer end()
	if err := l.prepareSave(ctx); err != nil {
		return because(ctx, err)
	}
	if err := a.link.call(ctx, proto.MethodFreeze, nil, nil); err != nil {
		return fmt.Errorf("have the machine ready to be saved: %w", because(ctx, err))
	}
	return nil
}

// errGone says that nobody is there any more to answer.
var errGone = errors.New("the virtual machine has ended")

// whileItRuns is a context that ends with a VM: a guest that is gone answers nothing, and says nothing either.
func whileItRuns(ctx context.Context, vm hostagent.VM) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-vm.Done():
			cancel(errGone)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-watched }
}

// because is the reason for an error, where it is that the VM has ended.
func because(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errGone) {
		return errGone
	}
	return err
}

// goOn begins a new life of a VM that could not be saved; one that did not survive it is replaced.
func (a *agent) goOn(ctx context.Context, was *life) error {
	select {
	case <-was.vm.Done():
		a.state.say("the virtual machine ended while its memory was saved, and boots anew")
	default:
		l := a.newLife()
		l.vm, l.mac, l.restored, l.notes = was.vm, was.mac, true, a.noteLife(was)
		a.keepShares(l, was)
		a.current.Store(l)
		err := a.awaitRoom(ctx, l.vm, retryEvery)
		if err == nil {
			err = a.live(ctx, l)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.state.say("the machine does not go on, and boots anew: " + err.Error())
		if err := errors.Join(a.abandon(), l.end()); err != nil {
			return err
		}
	}
	a.current.Store(nil)
	if err := a.drop("the machine boots anew"); err != nil {
		a.log.Warn("drop the saved memory", "error", err)
	}
	return a.begin(ctx)
}

// resume begins the next life of a machine that is asleep.
func (a *agent) resume(ctx context.Context) (killed bool, err error) {
	a.bySuspend.Store(false)
	a.gate.set(reachNone, nil)
	a.state.set(func(s *hostagent.Status) { s.Asleep = false })
	a.state.enter(hostagent.Resuming, "")
	return a.killable(ctx, nil, a.begin)
}

// putAside stops a machine so that its next start is instant: containers are stopped, the quiet guest is saved. done is false where that cannot be, or did not
// come about; then the machine runs, and the guest can be asked.
func (a *agent) putAside(grace time.Duration) (done, killed bool) {
	l := a.current.Load()
	if !a.canSave(l) {
		return false, false
	}
	a.withContainers = false
	killed, err := a.killable(context.Background(), nil, func(ctx context.Context) error {
		stopping, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		stopping, end := whileItRuns(stopping, l.vm)
		defer end()
		if err := a.stopContainers(stopping, l); err != nil {
			return errors.Join(because(stopping, err), l.end())
		}
		within, cancel := context.WithTimeout(ctx, putAsideWait)
		defer cancel()
		return a.save(within, l, saving{})
	})
	if killed || err == nil {
		return !killed, killed
	}
	a.state.say("the machine is turned off, and its next start will boot: " + err.Error())
	select {
	case <-l.vm.Done():
		return true, false
	default:
	}
	again := a.newLife()
	again.vm, again.mac = l.vm, l.mac
	a.keepShares(again, l)
	a.current.Store(again)
	a.net.Load().Reopen()
	a.link.begin(again)
	again.onEnd("link", a.link.end)
	again.work.Go(func() { a.link.keep(again) })
	return false, false
}

// serveRequest hands a request to the agent, and answers with what came of it.
func (a *agent) serveRequest(suspend bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := request{suspend: suspend, reply: make(chan error, 1)}
		var err error
		select {
		case a.requests <- q:
			select {
			case err = <-q.reply:
			case <-r.Context().Done():
				return // it goes on
			}
		case <-r.Context().Done():
			return
		case <-a.ctx.Done():
			err = errStopping
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
