// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	// diskEvery is how often the guest is asked how full its disk is and whether it is well: often enough to be told before the next build fails.
	diskEvery = 30 * time.Second
	// firstLook comes sooner: a disk that was full at the last stop is full now.
	firstLook = 2 * time.Second
	// retryEvery is how often a VM that stands still, as the host has no room, tries again what failed.
	retryEvery = 5 * time.Second
)

// watchDisks tells of a full disk on either side for as long as a life lasts.
func (a *agent) watchDisks(_ context.Context, l *life) error {
	l.work.Go(func() { a.watchGuestDisk(l.ctx) })
	if vm, ok := l.vm.(hostagent.Staller); ok {
		l.work.Go(func() { a.watchHostDisk(l.ctx, vm, retryEvery) })
	}
	return nil
}

// watchGuestDisk asks the guest what ails it, among others a full disk.
func (a *agent) watchGuestDisk(ctx context.Context) {
	wait := time.NewTimer(firstLook)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		a.lookAtGuest(ctx)
		wait.Reset(diskEvery)
	}
}

// lookAtGuest notes what the guest says of itself. That it says nothing is the clock's to notice, which asks more often.
func (a *agent) lookAtGuest(ctx context.Context) {
	release, ok := a.holdIfAwake()
	if !ok {
		return
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	if h, err := a.link.health(ctx); err == nil {
		a.state.problem("guest", guestProblem(a.o.Machine, h))
	}
}

// guestProblem is what the guest says of itself as one problem; nil: nothing ails it. What has no room comes with what to do about it.
func guestProblem(name string, h proto.Health) *hostagent.Problem {
	if len(h.Problems) == 0 {
		return nil
	}
	p := &hostagent.Problem{Code: "guest", Text: strings.Join(h.Problems, "; "), Hint: "see `dev machine logs --console " + name + "`"}
	if h.Disk.Total > 0 && h.Disk.Free*100 < h.Disk.Total {
		p.Code, p.Hint = "disk-full", fmt.Sprintf("`dev machine df %s` shows what can be removed; `dev machine edit --disk SIZE %s` enlarges the disk", name, name)
	}
	return p
}

// awaitRoom waits as long as a VM stands still because the host cannot keep what it writes: it is not to be given up, as what it has not written would be lost.
func (a *agent) awaitRoom(ctx context.Context, vm hostagent.VM, every time.Duration) error {
	staller, ok := vm.(hostagent.Staller)
	if !ok {
		return nil
	}
	for said := false; ; said = true {
		if stands, err := staller.Stands(ctx); err != nil || !stands {
			return ctx.Err() // a VM that does not answer shows soon enough
		}
		if !said {
			a.state.say("the machine stands still, as this host cannot keep what it writes: it goes on as soon as there is room on the disk with its folder")
		}
		if err := staller.Continue(ctx); err != nil {
			a.log.Warn("let the machine go on", "error", err)
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

// watchHostDisk lets a VM that stood still because the host could not keep what it wrote go on as soon as it can: nothing is lost meanwhile.
func (a *agent) watchHostDisk(ctx context.Context, vm hostagent.Staller, every time.Duration) {
	retry := time.NewTimer(0)
	<-retry.C
	defer retry.Stop()
	stands := false
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-vm.Stalled():
			stands = true
			a.state.problem("host-disk", &hostagent.Problem{
				Code: "host-disk-full", Text: fmt.Sprintf("the machine stands still, as this host cannot keep what it writes: %v", err),
				Hint: "free room on the disk with the machine's folder: the machine then goes on by itself, and nothing is lost",
			})
			retry.Reset(every)
		case <-retry.C:
			if !stands { // it has not stopped again since the last try
				a.state.problem("host-disk", nil)
				continue
			}
			stands = false
			if err := vm.Continue(ctx); err != nil && !errors.Is(err, context.Canceled) {
				a.log.Warn("let the machine go on", "error", err)
				stands = true
			}
			retry.Reset(every)
		}
	}
}
