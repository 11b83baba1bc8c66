// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

func newStatsCommand(a *app) *cobra.Command {
	var o statsOptions
	c := &cobra.Command{
		Use:     "stats [OPTIONS] [SERVICE...]",
		Short:   "Show what the containers use: processor, memory, network, disk",
		GroupID: groupLook,
		Example: `  dev stats                     follow, until ctrl-c
  dev stats --no-stream web     once
  dev stats --no-stream --format '{{.Name}} {{.MemUsage}}'`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			return a.runStats(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "show stopped containers, too")
	f.StringVar(&o.format, "format", "", "table, json, or a Go template; table TEMPLATE adds a header")
	f.BoolVar(&o.noStream, "no-stream", false, "measure once instead of following")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "show long values in full")
	return c
}

// statsView shows what containers use as they come and go.
type statsView struct {
	*app
	statsOptions
	e        *engine.Client
	services []string

	mu      sync.Mutex
	rows    map[string]*statsRow          // by container ID
	stops   map[string]context.CancelFunc // by container ID
	follows sync.WaitGroup
}

func (a *app) runStats(ctx context.Context, o statsOptions, services []string) error {
	return a.onContainers(ctx, func(e *engine.Client, have compose.Snapshot) error {
		if err := a.checkNames(ctx, have, services); err != nil {
			return err
		}
		v := &statsView{app: a, statsOptions: o, e: e, services: services, rows: map[string]*statsRow{}, stops: map[string]context.CancelFunc{}}
		if err := v.write(io.Discard, nil); err != nil { // a template that means nothing
			return err
		}
		if o.noStream {
			return v.once(ctx, have)
		}
		return v.follow(ctx)
	})
}

// picks reports whether a container is to be shown.
func (v *statsView) picks(c compose.Container) bool {
	return len(v.services) == 0 || slices.Contains(v.services, c.Service())
}

// once measures all containers at the same time, and shows them when the last is done.
func (v *statsView) once(ctx context.Context, have compose.Snapshot) error {
	g, ctx := errgroup.WithContext(ctx)
	var rows []*statsRow
	for _, c := range have.Containers {
		if !v.picks(c) || !v.all && !up(c.State) {
			continue
		}
		row := &statsRow{c: c, known: true, trunc: !v.noTrunc}
		rows = append(rows, row)
		g.Go(func() (err error) {
			if row.s, err = v.e.Stats(ctx, c.ID); err != nil {
				return fmt.Errorf("measure container %q: %w", c.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return v.write(v.out, rows)
}

// follow shows the containers until ctx is done or the engine goes away.
func (v *statsView) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer v.follows.Wait()
	defer cancel()
	name, err := v.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	v.follows.Go(func() {
		ended <- v.e.Events(ctx, engine.EventsOptions{Project: name, Ready: func() { close(ready) }}, func(ev engine.Event) { v.note(ctx, ev) })
	})
	select {
	case <-ready: // what starts from now on is told
	case err := <-ended:
		return err
	}
	have, err := v.e.Observe(ctx, compose.Query{Project: name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	for _, c := range have.Containers {
		if v.all || up(c.State) {
			v.add(ctx, c)
		}
	}
	return v.draw(ctx, ended)
}

// draw shows the rows twice a second; the engine measures once.
func (v *statsView) draw(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := v.frame(); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// frame draws all rows over the ones before; where that cannot be done, below them.
func (v *statsView) frame() error {
	v.mu.Lock()
	rows := slices.SortedFunc(maps.Values(v.rows), func(x, y *statsRow) int { return cmp.Compare(x.c.Name, y.c.Name) })
	copies := make([]*statsRow, len(rows))
	for i, r := range rows {
		c := *r
		copies[i] = &c
	}
	v.mu.Unlock()
	var text bytes.Buffer
	if err := v.write(&text, copies); err != nil {
		return err
	}
	out := text.Bytes()
	if v.moves(v.out) {
		// To the top, each line to its end, and what is left of the frame before.
		out = slices.Concat([]byte("\x1b[H"), bytes.ReplaceAll(out, []byte("\n"), []byte("\x1b[K\n")), []byte("\x1b[J"))
	}
	_, err := v.out.Write(out)
	return err
}

// note adds and removes containers as they come and go.
func (v *statsView) note(ctx context.Context, ev engine.Event) {
	switch ev.Action {
	case "start", "create":
		if ev.Action == "start" || v.all {
			v.add(ctx, ev.Container())
		}
	case "die", "destroy":
		if ev.Action == "destroy" || !v.all {
			v.remove(ev.ID)
		}
	}
}

func (v *statsView) add(ctx context.Context, c compose.Container) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rows[c.ID] != nil || !v.picks(c) {
		return
	}
	row := &statsRow{c: c, trunc: !v.noTrunc}
	ctx, cancel := context.WithCancel(ctx)
	v.rows[c.ID], v.stops[c.ID] = row, cancel
	v.follows.Go(func() {
		err := v.e.FollowStats(ctx, c.ID, func(s engine.Stats) {
			v.mu.Lock()
			defer v.mu.Unlock()
			row.s, row.known = s, true
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			v.logger().Debug("measure container", "name", c.Name, "error", err)
		}
	})
}

func (v *statsView) remove(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if stop := v.stops[id]; stop != nil {
		stop()
	}
	delete(v.rows, id)
	delete(v.stops, id)
}

// write shows the rows as --format says.
func (v *statsView) write(w io.Writer, rows []*statsRow) error {
	ctx := formatter.Context{Output: w, Format: statsFormat(v.format), Trunc: !v.noTrunc}
	err := ctx.Write(newStatsRow(), func(write func(formatter.SubContext) error) error {
		for _, r := range rows {
			if err := write(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return withHint(fmt.Errorf("use --format %q: %w", v.format, err), "see dev stats --no-stream --format json for the fields")
	}
	return nil
}
