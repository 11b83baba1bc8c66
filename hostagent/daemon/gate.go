// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// reach is how far a machine can be used.
type reach int

const (
	reachNone   reach = iota // nobody is let in
	reachGuest               // the guest's agent and its SSH server answer
	reachEngine              // the engine answers, and all else
)

// gate is what everything from the host passes to use the guest: it lets in while the machine is awake, holds who comes while it is not, and wakes it for
// them; and it knows since when nobody is inside. It is safe for concurrent use.
type gate struct {
	mu      sync.Mutex
	open    reach
	refusal error         // for who would have to wait; nil: they may
	changed chan struct{} // closed and replaced when open or refusal changes
	inside  int           // visits that keep the machine awake
	quiet   time.Time     // when the last of them ended
	waiting int
	wake    chan struct{} // somebody waits
}

func newGate() *gate {
	return &gate{changed: make(chan struct{}), wake: make(chan struct{}, 1), quiet: time.Now()}
}

// set opens the gate as far as r says, or closes it; refusal is what who comes then is told, nil: they may wait.
func (g *gate) set(r reach, refusal error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.change(r, refusal)
}

func (g *gate) change(r reach, refusal error) {
	if r == reachNone {
		select {
		case <-g.wake: // who waited for an earlier sleep to end
		default:
		}
	}
	g.open, g.refusal = r, refusal
	close(g.changed)
	g.changed = make(chan struct{})
}

// closeIfQuiet closes the gate if nobody is inside: from then on, whoever comes waits, and wakes.
func (g *gate) closeIfQuiet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside > 0 || g.waiting > 0 {
		return false
	}
	g.change(reachNone, nil)
	return true
}

// quietSince is when the machine was last used; now, while it is.
func (g *gate) quietSince() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside > 0 || g.waiting > 0 {
		return time.Now()
	}
	return g.quiet
}

// touch says that the machine is used just now.
func (g *gate) touch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quiet = time.Now()
}

// pass waits until the machine can be used as far as r, waking it where it sleeps. Until the visit's end it will not fall asleep.
func (g *gate) pass(ctx context.Context, r reach) (*visit, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting++
	defer func() { g.waiting--; g.quiet = time.Now() }()
	for g.open < r {
		if g.refusal != nil {
			return nil, g.refusal
		}
		changed := g.changed
		g.mu.Unlock()
		signal(g.wake)
		select {
		case <-changed:
		case <-ctx.Done():
		}
		g.mu.Lock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the machine does not wake: %w", context.Cause(ctx))
		}
	}
	g.inside++
	return &visit{gate: g, active: true}, nil
}

// tryPass is pass for who cannot wait: nil, if it would have to; then the machine is woken.
func (g *gate) tryPass(r reach) *visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= r {
		g.inside++
		return &visit{gate: g, active: true}
	}
	if g.refusal == nil {
		signal(g.wake)
	}
	return nil
}

// passAwake is tryPass for who neither waits nor wakes. As it is the agent's own doing, it does not make the machine stay awake longer.
func (g *gate) passAwake(r reach) *visit {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open < r {
		return nil
	}
	g.inside++
	return &visit{gate: g, active: true, ours: true}
}

// visit is somebody's use of the machine, which keeps it awake while it is active. It is safe for concurrent use.
type visit struct {
	gate          *gate
	active, ended bool // under the gate's lock
	ours          bool // the agent's own
}

// use says whether the visit is active. An idle one does not keep the machine awake, and ends with its sleep.
func (v *visit) use(active bool) {
	g := v.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.ended || v.active == active {
		return
	}
	v.active = active
	if active {
		g.inside++
	} else {
		g.inside--
	}
	if !v.ours {
		g.quiet = time.Now()
	}
}

// end ends the visit; a second time does no harm.
func (v *visit) end() {
	v.use(false)
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	v.ended = true
}
