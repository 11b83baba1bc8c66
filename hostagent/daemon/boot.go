// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// bootUp boots, and once more where the first boot came to nothing for a reason that says nothing about the second: a hypervisor that crashed before its guest
// could do anything, or a template that could not be made.
func (a *agent) bootUp(ctx context.Context) error {
	for crashed := false; ; {
		err := a.boot(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		l := a.current.Load()
		switch {
		case errors.Is(err, errTemplate) && !a.withoutTemplate:
			a.withoutTemplate = true
			a.state.say("the machine boots again: " + err.Error())
		case bootsAgain(err, l != nil && l.linked, crashed):
			crashed = true
			a.state.say("the machine boots once more, as its virtual machine crashed: " + err.Error())
		default:
			return err
		}
		if err := a.clearAway(l); err != nil {
			return err
		}
	}
}

// clearAway ends what a boot has left that came to nothing; l is nil where there was no VM.
func (a *agent) clearAway(l *life) error {
	if l == nil {
		return nil
	}
	err := errors.Join(a.abandon(), l.end())
	a.current.Store(nil)
	return err
}

// bootsAgain says whether a boot that failed is tried once more: a hypervisor's crash, before the guest's agent was reached. After that the guest has had time to
// act, and what made the hypervisor crash may be something that it does.
func bootsAgain(err error, linked, tried bool) bool {
	return errors.Is(err, hostagent.ErrCrashed) && !linked && !tried
}

// bootPatience bounds the wait for a guest that boots: until nothing has been said on its console for so long, and as a whole.
type bootPatience struct{ silence, whole time.Duration }

// wholeBoot is how many times its limit a boot may take that goes on. On a host that is short of processors, nothing but time is missing.
const wholeBoot = 3

// left is how long to wait on for a boot that began so long ago and has been silent for so long; 0 or less: no longer.
func (p bootPatience) left(elapsed, silent time.Duration) time.Duration {
	silent = min(max(silent, 0), elapsed)
	return min(p.silence-silent, p.whole-elapsed)
}

// watchBoot ends the wait for a guest that boots, once its patience is at its end.
func (a *agent) watchBoot(ctx context.Context, p bootPatience, end context.CancelCauseFunc) {
	began := time.Now()
	wait := p.silence
	for first := true; ; first = false {
		if pause(ctx, wait) != nil {
			return
		}
		elapsed := time.Since(began)
		if wait = p.left(elapsed, silentFor(a.o.Console)); wait <= 0 {
			limit := elapsed.Round(time.Second)
			if first {
				limit = p.silence
			}
			end(&deadlineError{limit})
			return
		}
		if first {
			a.state.say(fmt.Sprintf("the machine boots slowly: after %v it is still at it, and may take %v", p.silence, p.whole))
		}
	}
}

// silentFor is for how long nothing has been written to a file.
func silentFor(file string) time.Duration {
	info, err := os.Stat(file)
	if err != nil {
		return math.MaxInt64
	}
	return time.Since(info.ModTime())
}
