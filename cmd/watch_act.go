// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
)

// replicas remembers what containers have been given, so that a new container of a service gets it, too.
type replicas struct {
	// known are the containers that have all that was copied so far, with whom their files belong to.
	known map[string]engine.Owner
	// copied and removed are what was done for a service since watching began, by path in the container.
	copied  map[string]map[string]compose.WatchCopy
	removed map[string]map[string]bool
}

// note remembers a batch.
func (r *replicas) note(b compose.WatchBatch) {
	if r.copied == nil {
		r.copied, r.removed = map[string]map[string]compose.WatchCopy{}, map[string]map[string]bool{}
	}
	if r.copied[b.Service] == nil {
		r.copied[b.Service], r.removed[b.Service] = map[string]compose.WatchCopy{}, map[string]bool{}
	}
	for _, gone := range b.Remove {
		maps.DeleteFunc(r.copied[b.Service], func(to string, _ compose.WatchCopy) bool { return to == gone || strings.HasPrefix(to, gone+"/") })
		r.removed[b.Service][gone] = true
	}
	for _, c := range b.Copy {
		r.copied[b.Service][c.To] = c
		delete(r.removed[b.Service], c.To)
	}
}

// since is all that was done for a service, as one batch.
func (r *replicas) since(service string) compose.WatchBatch {
	b := compose.WatchBatch{Service: service, Remove: slices.Sorted(maps.Keys(r.removed[service]))}
	for _, to := range slices.Sorted(maps.Keys(r.copied[service])) {
		b.Copy = append(b.Copy, r.copied[service][to])
	}
	return b
}

// begin copies what initial_sync asks for into the containers that are there, and takes note of these.
func (w *watching) begin(ctx context.Context) error {
	have, err := w.e.Observe(ctx, compose.Query{Project: w.p.Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	if w.replicas.known == nil {
		w.replicas.known = map[string]engine.Owner{}
	}
	for _, c := range have.Containers {
		if _, known := w.replicas.known[c.ID]; !known && !c.OneOff() && w.watches(c.Service()) {
			w.bringUpToDate(ctx, c)
		}
	}
	return nil
}

// bringUpToDate copies into a container that is new what initial_sync asks for and what has been changed since watching began.
func (w *watching) bringUpToDate(ctx context.Context, c compose.Container) {
	if _, known := w.replicas.known[c.ID]; known {
		return
	}
	owner, err := w.e.ContainerOwner(ctx, c.ID)
	if err != nil {
		w.failed(ctx, c, err)
		return
	}
	w.replicas.known[c.ID] = owner
	b := w.initial(c.Service())
	since := w.replicas.since(c.Service())
	b.Remove, b.Copy = append(b.Remove, since.Remove...), append(b.Copy, since.Copy...)
	if !b.Sync() {
		return
	}
	if err := w.sync(ctx, c, b); err != nil {
		w.failed(ctx, c, err)
		return
	}
	w.a.say(fmt.Sprintf("%s: %s copied into the new container", logName(c), count(len(b.Copy), "file")))
}

// initial is a batch of everything that the service's rules with initial_sync cover.
func (w *watching) initial(service string) compose.WatchBatch {
	var rules []compose.WatchRule
	var all []compose.WatchChange
	for _, r := range w.rules {
		if r.Service == service && r.InitialSync {
			rules = append(rules, r)
			all = append(all, w.tree.Known(r.Path)...)
		}
	}
	for _, b := range compose.NewWatchPlan(rules, all) {
		return compose.WatchBatch{Service: service, Copy: b.Copy}
	}
	return compose.WatchBatch{Service: service}
}

// react carries out what a set of changes means.
func (w *watching) react(ctx context.Context, set []compose.WatchChange) {
	for _, b := range compose.NewWatchPlan(w.rules, set) {
		if ctx.Err() != nil {
			return
		}
		if err := w.carryOut(ctx, b); err != nil && ctx.Err() == nil {
			w.complain(err)
		}
	}
}

// carryOut does what a batch says. A rebuild that fails leaves the containers as they are, and they get the files all the same.
func (w *watching) carryOut(ctx context.Context, b compose.WatchBatch) error {
	if b.Rebuild {
		w.a.say(fmt.Sprintf("%s: rebuilding after %s changed", b.Service, w.causes(b)))
		if err := w.rebuild(ctx, b.Service); err != nil {
			w.complain(err)
		}
	}
	containers, err := w.containers(ctx, b.Service)
	if err != nil {
		return err
	}
	if len(containers) == 0 {
		w.a.say(fmt.Sprintf("%s: %s changed, but it has no container; it is started by dev up", b.Service, w.causes(b)))
		return nil
	}
	if b.Sync() {
		w.replicas.note(b)
		g, gctx := errgroup.WithContext(ctx)
		for _, c := range containers {
			g.Go(func() error { return w.sync(gctx, c, b) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		w.a.say(fmt.Sprintf("%s: %s synced", b.Service, w.causes(b)))
	}
	if err := w.runHooks(ctx, containers, b); err != nil {
		return err
	}
	if b.Restart {
		w.a.say(fmt.Sprintf("%s: restarting after %s changed", b.Service, w.causes(b)))
		return w.restart(ctx, b.Service)
	}
	return nil
}

// containers are the service's, running or not: one that crashed over a mistake gets the file that mends it.
func (w *watching) containers(ctx context.Context, service string) ([]compose.Container, error) {
	have, err := w.e.Observe(ctx, compose.Query{Project: w.p.Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return nil, err
	}
	var list []compose.Container
	for _, c := range have.Containers {
		if c.Service() != service || c.OneOff() || c.State == compose.StateRemoving || c.State == compose.StateDead {
			continue
		}
		if _, known := w.replicas.known[c.ID]; !known {
			w.bringUpToDate(ctx, c)
		}
		list = append(list, c)
	}
	return list, nil
}

// sync changes a container's files. One that is gone meanwhile has a successor, which is told of.
func (w *watching) sync(ctx context.Context, c compose.Container, b compose.WatchBatch) error {
	err := w.e.SyncFiles(ctx, c.ID, engine.SyncOptions{Remove: b.Remove, Copy: b.Copy, Owner: w.replicas.known[c.ID]})
	if err != nil && !engine.IsGone(err) {
		return fmt.Errorf("sync files to %s: %w", c.Name, err)
	}
	return nil
}

func (w *watching) failed(ctx context.Context, c compose.Container, err error) {
	if ctx.Err() == nil && !engine.IsGone(err) {
		w.complain(fmt.Errorf("sync files to %s: %w", c.Name, err))
	}
}

// runHooks runs the commands of sync+exec in the containers that run.
func (w *watching) runHooks(ctx context.Context, containers []compose.Container, b compose.WatchBatch) error {
	for _, hook := range b.Exec {
		for _, c := range containers {
			if c.State != compose.StateRunning {
				continue
			}
			op := compose.Op{Kind: compose.OpRunHook, Ref: compose.Ref{ID: c.ID}, Hook: &hook}
			_, err := w.e.Do(ctx, op, nil, compose.SinkFunc(func(e compose.Event) {
				if e.Text != "" {
					w.a.say(logName(c) + ": " + e.Text)
				}
			}))
			if err != nil {
				return fmt.Errorf("run %q in %s: %w", strings.Join(hook.Command, " "), c.Name, err)
			}
		}
	}
	return nil
}

// restart restarts a service's containers as they are.
func (w *watching) restart(ctx context.Context, service string) error {
	have, err := w.e.Observe(ctx, compose.Query{Project: w.p.Name, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	plan, err := compose.NewRestartPlan(w.p.Name, w.p, have, compose.RestartOptions{Services: []string{service}, NoDeps: true})
	if err != nil {
		return err
	}
	return w.a.applyAndExplain(ctx, w.e, w.p, plan, applyOptions{heading: "restart"})
}

// rebuild builds a service's image and replaces its containers by such of the new one.
func (w *watching) rebuild(ctx context.Context, service string) error {
	name := compose.ImageName(w.p, w.p.Services[service])
	before := w.imageID(ctx, name)
	err := w.up(ctx, []string{service}, func(o *upOptions) { o.build, o.noDeps, o.again = true, true, true })
	if err != nil || !w.o.prune || before == "" || before == w.imageID(ctx, name) {
		return err
	}
	op := compose.Op{Kind: compose.OpRemoveImage, Target: "image " + before, Image: &compose.ImageSpec{Ref: before}}
	if _, err := w.e.Do(ctx, op, nil, compose.Discard); err != nil {
		w.a.logger().Debug("the replaced image stays", "image", before, "error", err) // something uses it
	}
	return nil
}

// imageID is the ID of a local image, empty if there is none.
func (w *watching) imageID(ctx context.Context, name string) string {
	have, err := w.e.Observe(ctx, compose.Query{SkipNetworks: true, SkipVolumes: true, Images: []string{name}})
	if err != nil {
		return ""
	}
	return have.Images[name].ID
}

// causes names the files behind a batch.
func (w *watching) causes(b compose.WatchBatch) string {
	const most = 3
	if len(b.Causes) > most {
		return count(len(b.Causes), "file")
	}
	names := make([]string, len(b.Causes))
	for i, path := range b.Causes {
		names[i] = w.short(path)
	}
	return strings.Join(names, ", ")
}

// count says how many of something there are.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
