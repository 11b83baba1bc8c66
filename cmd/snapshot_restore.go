// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/snapshots"
)

type snapshotRestoreOptions struct {
	yes, noSafety bool
	volumes       []string
}

func newSnapshotRestoreCommand(a *app) *cobra.Command {
	var o snapshotRestoreOptions
	c := &cobra.Command{
		Use:   "restore [PROJECT/]NAME",
		Short: "Bring the volumes back to what a snapshot has",
		Long: `Replaces the content of the volumes by that of the snapshot. What they hold now is
saved as a snapshot of its own first, and put back if the restore fails. Containers
that mount the volumes are stopped, made again and started if they ran.

The snapshot is checked before anything is changed. PROJECT/NAME takes one of another
project or environment.`,
		Example: `  dev snapshot restore before-migration
  dev snapshot restore shop/monday       in an environment: main's snapshot`,
		Args: takes(1, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runSnapshotRestore(c.Context(), o, args[0])
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.noSafety, "no-safety", false, "do not save what the volumes hold now")
	f.StringArrayVar(&o.volumes, "volume", nil, "restore only this `VOLUME`; may be repeated")
	return c
}

// restore is one restore under way.
type restore struct {
	a     *app
	e     *engine.Client
	p     *types.Project
	store snapshots.Store
	work  *snapshots.Work
	// running are the services that ran before.
	running []string
}

func (a *app) runSnapshotRestore(ctx context.Context, o snapshotRestoreOptions, name string) error {
	p, err := a.load(ctx)
	if err != nil {
		return err
	}
	r := &restore{a: a, p: p}
	if r.store, err = a.snapshotStore(); err != nil {
		return err
	}
	snap, contents, err := r.find(ctx, name, o.volumes)
	if err != nil {
		return err
	}
	if r.e, err = a.openEngine(ctx, startsEngine); err != nil {
		return err
	}
	defer r.e.Close()
	if r.work, err = r.store.Begin(ctx, p.Name, patience); err != nil {
		return err
	}
	defer func() { _ = r.work.Close() }() // the lock goes with the process
	if err := a.putRight(ctx, r.e, p.Name, r.work); err != nil {
		return err
	}
	if !a.dryRun {
		if err := r.loadImages(ctx, snap); err != nil {
			return err
		}
	}
	have, plan, err := r.plan(ctx, contents)
	if err != nil || len(contents) == 0 {
		return err
	}
	if a.dryRun {
		return a.showPlan(plan)
	}
	if n := len(plan.Destructive()); n > 0 && !o.yes {
		ok, err := a.confirm(ctx, fmt.Sprintf("Replace the content of %d volumes by that of snapshot %s?", n, snap.Name))
		if err != nil || !ok {
			return err
		}
	}
	return r.run(ctx, o, snap, have, plan, contents)
}

// find reads and checks the snapshot, and says what each volume is to be filled with.
func (r *restore) find(ctx context.Context, name string, only []string) (snapshots.Snapshot, map[string]string, error) {
	project := r.p.Name
	if of, rest, ok := strings.Cut(name, "/"); ok {
		project, name = of, rest
	}
	snap, err := r.store.Get(project, name)
	if err != nil {
		return snap, nil, err
	}
	contents := map[string]string{}
	for _, v := range snap.Volumes {
		if len(only) == 0 || slices.Contains(only, v.Key) {
			contents[v.Key] = v.Blob
		}
	}
	for _, key := range only {
		if contents[key] == "" {
			return snap, nil, fmt.Errorf("snapshot %q has no volume %q", snap.Name, key)
		}
	}
	if len(contents) == 0 && !slices.ContainsFunc(snap.Images, func(i snapshots.Image) bool { return i.Blob != "" }) {
		return snap, nil, fmt.Errorf("snapshot %q has no volumes", snap.Name)
	}
	for key := range contents {
		if _, ok := r.p.Volumes[key]; !ok {
			r.a.warn(fmt.Sprintf("the project has no volume %s any more; it is left out", key))
			delete(contents, key)
		}
	}
	return snap, contents, r.store.Check(ctx, snap)
}

// plan observes and plans.
func (r *restore) plan(ctx context.Context, contents map[string]string) (compose.Snapshot, compose.Plan, error) {
	have, err := r.e.Observe(ctx, compose.QueryFor(r.p))
	if err != nil {
		return have, compose.Plan{}, err
	}
	plan, err := compose.NewRestorePlan(r.p, have, contents)
	return have, plan, err
}

// run saves what is there, replaces it, and puts it back if that fails.
func (r *restore) run(ctx context.Context, o snapshotRestoreOptions, snap snapshots.Snapshot, have compose.Snapshot, plan compose.Plan, contents map[string]string) error {
	r.noteRunning(have, contents)
	pending := snapshots.Pending{Restoring: snap.Name}
	safety := map[string]string{}
	switch left := r.work.Left; {
	case left != nil && left.Safety != "":
		// An earlier restore was interrupted: what is there now is half of one; what was there before it is saved already.
		pending.Safety = left.Safety
		if err := r.contentsOf(left.Safety, safety); err != nil {
			return err
		}
	case !o.noSafety && len(plan.Destructive()) > 0:
		saved, err := r.saveSafety(ctx, snap, have, contents)
		if err != nil {
			return err
		}
		pending.Safety = saved.Name
		if err := r.contentsOf(saved.Name, safety); err != nil {
			return err
		}
		r.a.say(fmt.Sprintf("what the volumes held is snapshot %s", saved.Name))
	}
	if err := r.work.Note(pending); err != nil {
		return err
	}
	if err := r.apply(ctx, plan); err != nil {
		return r.back(ctx, pending.Safety, safety, err)
	}
	if err := r.work.Done(); err != nil {
		return err
	}
	r.a.say(fmt.Sprintf("restored %d volumes from snapshot %s", len(contents), snap.Name))
	return r.start(ctx)
}

// noteRunning remembers which services to start again.
func (r *restore) noteRunning(have compose.Snapshot, contents map[string]string) {
	for _, c := range have.Containers {
		for key := range contents {
			name := r.p.Volumes[key].Name
			uses := slices.ContainsFunc(c.Mounts, func(m compose.Mount) bool { return m.Name == name })
			runs := c.State == compose.StateRunning || c.State == compose.StatePaused || c.State == compose.StateRestarting
			if uses && runs && !c.OneOff() && !slices.Contains(r.running, c.Service()) {
				r.running = append(r.running, c.Service())
			}
		}
	}
}

// saveSafety saves the volumes that are about to be replaced, at rest.
func (r *restore) saveSafety(ctx context.Context, snap snapshots.Snapshot, have compose.Snapshot, contents map[string]string) (snapshots.Snapshot, error) {
	s := snapshots.Snapshot{
		Project: r.p.Name, Created: r.a.now().UTC(), Reason: "restore of " + snap.Name, Name: freeName(r.store, r.p.Name, "before-restore-of-"+snap.Name),
	}
	var names []string
	for key := range contents {
		if v := have.Volumes[r.p.Volumes[key].Name]; v.Name != "" {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	rest, err := restOf(have.Containers, names, restPause)
	if err != nil {
		return s, err
	}
	err = r.store.Saving(ctx, func() error {
		taken := &taking{e: r.e, store: r.store}
		err := r.a.resting(ctx, r.e, r.work, rest, func() error { return taken.takeAll(ctx, have, names) })
		if err == nil {
			s.Volumes, err = taken.finish(ctx)
		}
		if err != nil {
			return withHint(errors.Join(err, taken.discard()), "dev snapshot restore --no-safety goes on without saving what is there now")
		}
		return r.store.Put(s)
	})
	return s, err
}

func (r *restore) contentsOf(name string, contents map[string]string) error {
	snap, err := r.store.Get(r.p.Name, name)
	for _, v := range snap.Volumes {
		contents[v.Key] = v.Blob
	}
	return err
}

// apply carries a plan out with the store's contents.
func (r *restore) apply(ctx context.Context, plan compose.Plan) error {
	f := &failures{}
	e := restoringEngine{r.e, r.store}
	err := r.a.apply(ctx, e, plan, applyOptions{heading: "restore", also: f})
	return r.a.explainFailure(ctx, r.e, r.p, f, err)
}

// back puts what was there in place again after a restore that failed.
func (r *restore) back(ctx context.Context, name string, safety map[string]string, cause error) error {
	if name == "" {
		return cause
	}
	r.a.say("the restore failed; what was there is put back from snapshot " + name)
	ctx = context.WithoutCancel(ctx)
	_, plan, err := r.plan(ctx, safety)
	if err == nil {
		err = r.apply(ctx, plan)
	}
	if err == nil {
		err = errors.Join(r.work.Done(), r.start(ctx))
	}
	if err != nil {
		return withHint(errors.Join(cause, fmt.Errorf("put back what was there: %w", err)), "it is safe: dev snapshot restore %s", name)
	}
	return cause
}

// start starts the services that ran before.
func (r *restore) start(ctx context.Context) error {
	if len(r.running) == 0 {
		return nil
	}
	slices.Sort(r.running)
	have, err := r.e.Observe(ctx, compose.QueryFor(r.p))
	if err != nil {
		return err
	}
	plan, err := compose.NewStartPlan(r.p.Name, r.p, have, compose.StartOptions{Services: r.running})
	if err != nil {
		return err
	}
	return r.a.applyAndExplain(ctx, r.e, r.p, plan, applyOptions{heading: "start"})
}

// restoringEngine is an engine that knows the contents of a store by their digests.
type restoringEngine struct {
	*engine.Client
	store snapshots.Store
}

// Do implements compose.Engine.
func (e restoringEngine) Do(ctx context.Context, op compose.Op, made compose.Results, sink compose.Sink) (compose.Result, error) {
	if op.Kind != compose.OpFillVolume {
		return e.Client.Do(ctx, op, made, sink)
	}
	folder, err := e.VolumeFolder(ctx, op.Ref.ID)
	if err != nil {
		return compose.Result{}, err
	}
	if folder != "" {
		err := e.store.Fill(ctx, op.Content, folder)
		if !errors.Is(err, errors.ErrUnsupported) {
			return compose.Result{ID: op.Ref.ID}, err
		}
	}
	archive, err := e.store.Open(op.Content)
	if err != nil {
		return compose.Result{}, err
	}
	defer archive.Close()
	return compose.Result{ID: op.Ref.ID}, e.FillVolume(ctx, op.Ref.ID, archive)
}

// unfinished refuses to start containers on volumes of which only half was restored, and lets go on what an interrupted snapshot left paused.
func (a *app) unfinished(ctx context.Context, e *engine.Client, project string) error {
	store, err := a.snapshotStore()
	if err != nil || !store.Unfinished(project) {
		return err
	}
	work, err := store.Begin(ctx, project, patience)
	if err != nil {
		return err
	}
	defer func() { _ = work.Close() }() // the lock goes with the process
	if err := a.putRight(ctx, e, project, work); err != nil {
		return err
	}
	left := work.Left
	if left == nil || left.Restoring == "" {
		return nil
	}
	err = fmt.Errorf("a restore of the volumes of project %q from snapshot %s was interrupted", project, left.Restoring)
	if left.Safety == "" {
		return withHint(err, "finish it: dev snapshot restore %s", left.Restoring)
	}
	return withHint(err, "finish it: dev snapshot restore %s; or go back: dev snapshot restore %s", left.Restoring, left.Safety)
}

// Bounds of what dev saves by itself.
const (
	automaticKept  = 3       // snapshots of a project
	automaticLimit = 2 << 30 // bytes of a volume, unless config.yaml says otherwise
)

// saveBefore saves the volumes that a plan is about to remove. Where that is switched off, or a volume is too large, it says so and goes on; any
// other failure stops the command while everything is still there.
func (a *app) saveBefore(ctx context.Context, e *engine.Client, project string, have compose.Snapshot, plan compose.Plan, reason string) error {
	lost := compose.Snapshot{Containers: have.Containers, Volumes: map[string]compose.Volume{}}
	for _, op := range plan.Ops {
		if v, ok := have.Volumes[op.Ref.ID]; ok && op.Kind == compose.OpRemoveVolume {
			lost.Volumes[v.Name] = v
		}
	}
	if len(namedVolumes(lost)) == 0 {
		return nil
	}
	limit, on, err := a.automaticSnapshots()
	if err != nil || !on {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(lost.Volumes)) {
		empty, err := e.VolumeEmpty(ctx, name)
		if err != nil {
			return notSaved(err)
		}
		if empty {
			delete(lost.Volumes, name)
		}
	}
	if len(lost.Volumes) == 0 {
		return nil
	}
	snap, err := a.save(ctx, e, project, lost, snapshotSaveOptions{reason: reason, limit: limit})
	if tooLarge, ok := errors.AsType[*snapshots.TooLargeError](err); ok {
		a.warn(fmt.Sprintf("no snapshot was taken: a volume has more than %s (snapshots.limit in config.yaml)", bytesText(tooLarge.Limit)))
		return nil
	}
	if err != nil {
		return notSaved(err)
	}
	a.say(fmt.Sprintf("the volumes are saved: %s brings them back", a.restoring(snap)))
	return a.forgetOldest(ctx, project)
}

// restoring is the command that brings a snapshot back into the project that this command works on.
func (a *app) restoring(snap snapshots.Snapshot) string {
	command := "dev"
	if a.projectName != "" {
		command += " -p " + a.projectName
	}
	if a.envName != "" {
		command += " --env " + a.envName
	}
	return command + " snapshot restore " + snap.Name
}

func notSaved(err error) error {
	return withHint(fmt.Errorf("save the volumes before they are removed: %w", err), "nothing was removed; --no-snapshot goes on without saving them")
}

// forgetOldest removes automatic snapshots of a project beyond those that are kept.
func (a *app) forgetOldest(ctx context.Context, project string) error {
	store, err := a.snapshotStore()
	if err != nil {
		return err
	}
	all, err := store.List(project)
	if err != nil {
		return err
	}
	var automatic []string
	for _, s := range all {
		if s.Automatic() {
			automatic = append(automatic, s.Name)
		}
	}
	if len(automatic) <= automaticKept {
		return nil
	}
	_, err = store.Remove(ctx, project, automatic[:len(automatic)-automaticKept]...)
	return err
}
