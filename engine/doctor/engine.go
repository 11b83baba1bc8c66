// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// Engine is what checks ask of an engine.
type Engine interface {
	Info(ctx context.Context) (system.Info, error)
	Leftovers(ctx context.Context) ([]engine.Leftover, error)
	RemoveLeftover(ctx context.Context, l engine.Leftover) error
}

// EngineChecks are the checks of an engine. open gives it, or says why there is none.
func (h Host) EngineChecks(open func(context.Context) (Engine, error)) []Check {
	return []Check{
		{Name: "engine", About: "whether it answers, and what it warns of", Run: func(ctx context.Context) []Finding { return h.engine(ctx, open) }},
		{Name: "clock", About: "the engine's time", Run: func(ctx context.Context) []Finding { return h.clock(ctx, open) }},
		{Name: "engine leftovers", About: "networks and containers that nothing uses", Run: func(ctx context.Context) []Finding { return leftovers(ctx, open) }},
	}
}

func (h Host) engine(ctx context.Context, open func(context.Context) (Engine, error)) []Finding {
	e, err := open(ctx)
	var info system.Info
	if err == nil {
		info, err = e.Info(ctx)
	}
	if err != nil {
		fix := "dev engine start"
		if hinter, ok := errors.AsType[interface {
			error
			Hint() string
		}](err); ok {
			fix = hinter.Hint()
		}
		return []Finding{{Severity: Broken, What: "the engine does not answer", Cause: err.Error(), Fix: fix}}
	}
	var found []Finding
	for _, w := range info.Warnings {
		found = append(found, Finding{
			Severity: Doubtful, What: strings.TrimPrefix(w, "WARNING: "), Cause: "the engine says so of its host", Fix: "see the engine's documentation; most applications run all the same",
		})
	}
	return found
}

func (h Host) clock(ctx context.Context, open func(context.Context) (Engine, error)) []Finding {
	e, err := open(ctx)
	if err != nil {
		return nil // another check says so
	}
	before := h.Now()
	info, err := e.Info(ctx)
	if err != nil {
		return nil // another check says so
	}
	theirs, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return nil // an engine that does not tell
	}
	skew := theirs.Sub(before)
	if skew < 0 {
		skew = before.Sub(theirs)
	} else if took := h.Now().Sub(before); skew > took { // it answered some time in between
		skew -= took
	}
	if skew <= mostSkew {
		return nil
	}
	return []Finding{{
		Severity: Broken, What: fmt.Sprintf("the engine's clock is %s off", skew.Round(time.Second)),
		Cause: "the machine slept, or its time is not synchronised: certificates, tokens and builds go wrong", Fix: "dev machine restart, or synchronise the engine's host (timedatectl set-ntp true)",
	}}
}

func leftovers(ctx context.Context, open func(context.Context) (Engine, error)) []Finding {
	e, err := open(ctx)
	if err != nil {
		return nil // another check says so
	}
	list, err := e.Leftovers(ctx)
	if err != nil {
		return nil // another check says so
	}
	var found []Finding
	for _, l := range list {
		found = append(found, Finding{
			Severity: Doubtful, What: l.String() + " is left over", Cause: l.Why, Fix: "remove it", RepairText: "remove " + l.String(),
			Repair: func(ctx context.Context) error { return e.RemoveLeftover(ctx, l) },
		})
	}
	return found
}

// PortCheck looks at the host ports that a project publishes and that none of its containers has.
func (h Host) PortCheck(p compose.Needs, ports map[string]uint16, have []compose.Container) Check {
	return Check{Name: "ports", About: "the host ports that this application publishes", Run: func(context.Context) []Finding {
		own := map[uint16]bool{}
		for _, c := range have {
			for _, port := range c.Ports {
				own[port.HostPort] = true
			}
		}
		var found []Finding
		for _, n := range p.Ports {
			port := ports[n.Key]
			if port == 0 || own[port] || h.PortFree(n.Protocol, port) {
				continue
			}
			service, _, _ := strings.Cut(n.Key, "/")
			found = append(found, Finding{
				Severity: Broken, What: fmt.Sprintf("port %d/%s, which service %s publishes, is taken", port, n.Protocol, service),
				Cause: "another program or application listens on it", Fix: "stop it; or run a copy with ports of its own: dev --env NAME up",
			})
		}
		return found
	}}
}
