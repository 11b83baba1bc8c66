// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// discardOptions say how a container is removed.
type discardOptions struct {
	timeout     *time.Duration // grace period in place of the container's own
	why         string
	volumes     bool    // remove its anonymous volumes too
	beforeStop  []*step // what must have succeeded before it stops
	beforeGoing []*step // … before it is removed
}

// noGrace reports whether a container is to be killed at once: then removing it by force is one call instead of two.
func noGrace(timeout *time.Duration, s types.ServiceConfig) bool {
	if timeout != nil {
		return *timeout == 0
	}
	return s.StopGracePeriod != nil && *s.StopGracePeriod == 0
}

// halt stops a container, after its service's pre_stop hooks.
func (g *graph) halt(c Container, s types.ServiceConfig, timeout *time.Duration, why string, needs ...*step) *step {
	hook := g.preStop(c, s, needs)
	stop := g.add(Op{
		Kind: OpStopContainer, Target: "container " + c.Name, Service: c.Service(), Reason: why, Timeout: timeout, Ref: Ref{ID: c.ID},
	}, needs...)
	stop.need(hook)
	return stop
}

// preStop runs the hooks of a running container and returns the last one, nil if there is none.
func (g *graph) preStop(c Container, s types.ServiceConfig, needs []*step) *step {
	if c.State != StateRunning {
		return nil
	}
	return g.hooks(s.PreStop, "pre_stop", Op{Target: "container " + c.Name, Service: c.Service(), Ref: Ref{ID: c.ID}}, needs)
}

// hooks runs hooks one after the other and returns the last, nil if there is none.
func (g *graph) hooks(hooks []types.ServiceHook, why string, op Op, needs []*step) *step {
	var last *step
	for i := range hooks {
		op.Kind, op.Reason, op.Hook = OpRunHook, why, &hooks[i]
		next := g.add(op, needs...)
		next.need(last)
		last = next
	}
	return last
}

// discard removes a container, after stopping it if it runs.
func (g *graph) discard(c Container, s types.ServiceConfig, o discardOptions) *step {
	remove := Op{
		Kind: OpRemoveContainer, Target: "container " + c.Name, Service: c.Service(), Reason: o.why, Ref: Ref{ID: c.ID},
		Force: true, Volumes: o.volumes, Destructive: o.volumes && hasAnonymousVolumes(c),
	}
	var last *step
	switch {
	case !running(c):
	case noGrace(o.timeout, s):
		last = g.preStop(c, s, o.beforeStop)
	default:
		last = g.halt(c, s, o.timeout, o.why, o.beforeStop...)
	}
	removed := g.add(remove, o.beforeStop...)
	removed.need(last)
	removed.need(o.beforeGoing...)
	return removed
}

// endProvider has the provider of a service do a command after its dependents have ended.
func (g *graph) endProvider(s types.ServiceConfig, command string, after []*step) *step {
	return g.add(Op{Kind: OpRunProvider, Target: "service " + s.Name, Service: s.Name, Reason: s.Provider.Type + " " + command, Name: command}, after...)
}

// hasAnonymousVolumes reports whether the container mounts volumes without a name of their own.
func hasAnonymousVolumes(c Container) bool {
	for _, m := range c.Mounts {
		if m.Type == types.VolumeTypeVolume && anonymousName.MatchString(m.Name) {
			return true
		}
	}
	return false
}
