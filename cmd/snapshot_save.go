// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/snapshots"
)

type snapshotSaveOptions struct {
	name, note, reason string
	images             bool
	stop, live         bool
	limit              int64 // bytes of a volume's archive; 0 is no limit
}

func newSnapshotSaveCommand(a *app) *cobra.Command {
	var o snapshotSaveOptions
	c := &cobra.Command{
		Use:   "save [NAME]",
		Short: "Save all volumes of the application",
		Long: `Saves the volumes that the application made; external ones and anonymous ones are left
out. Without NAME it is named after the time. The name is shown.`,
		Args: takes(0, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.stop && o.live {
				return usagef("--stop and --live exclude each other")
			}
			if len(args) == 1 {
				o.name = args[0]
				if err := snapshots.CheckName(o.name); err != nil {
					return err
				}
			}
			return a.runSnapshotSave(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.note, "message", "m", "", "`TEXT` to remember with it")
	f.BoolVar(&o.images, "images", false, "save the images that the services run, too")
	f.BoolVar(&o.stop, "stop", false, "stop containers that use the volumes meanwhile, instead of pausing them")
	f.BoolVar(&o.live, "live", false, "let containers go on meanwhile: files may not fit each other")
	return c
}

func (a *app) runSnapshotSave(ctx context.Context, o snapshotSaveOptions) error {
	_, project, err := a.loadOrName(ctx)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: project, SkipNetworks: true})
	if err != nil {
		return err
	}
	if len(have.Volumes) == 0 && !o.images {
		return withHint(fmt.Errorf("project %q has no volumes to save", project), "dev up makes them")
	}
	if a.dryRun {
		for _, name := range slices.Sorted(maps.Keys(have.Volumes)) {
			a.say("would save volume " + name)
		}
		return nil
	}
	snap, err := a.save(ctx, e, project, have, o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, snap.Name)
	return err
}

// save takes a snapshot of the project's volumes that have names in the Compose files.
func (a *app) save(ctx context.Context, e *engine.Client, project string, have compose.Snapshot, o snapshotSaveOptions) (snapshots.Snapshot, error) {
	store, err := a.snapshotStore()
	if err != nil {
		return snapshots.Snapshot{}, err
	}
	snap := snapshots.Snapshot{Project: project, Name: o.name, Created: time.Now().UTC().Truncate(time.Second), Reason: o.reason, Note: o.note}
	if snap.Name == "" {
		snap.Name = freeName(store, project, snap.Created.Local().Format("2006-01-02-150405"))
	} else if store.Has(project, snap.Name) {
		return snap, withHint(fmt.Errorf("there is a snapshot %q of project %q", snap.Name, project), "dev snapshot rm %s", snap.Name)
	}
	volumes := namedVolumes(have)
	mode := ""
	switch {
	case o.stop:
		mode = restStop
	case o.live:
		mode = restNone
	}
	err = store.Saving(ctx, func() error {
		if o.images {
			if snap.Images, err = saveImages(ctx, e, store, have.Containers); err != nil {
				return err
			}
		}
		taken := &taking{e: e, store: store, limit: o.limit}
		err := a.atRest(ctx, e, project, have.Containers, volumes, mode, func() error { return taken.takeAll(ctx, have, volumes) })
		if err == nil {
			snap.Volumes, err = taken.finish(ctx)
		}
		if err != nil {
			return errors.Join(err, taken.discard())
		}
		return store.Put(snap)
	})
	return snap, err
}

// freeName is a name that no snapshot of the project has yet.
func freeName(store snapshots.Store, project, name string) string {
	free := name
	for n := 2; store.Has(project, free); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

// namedVolumes are the volumes that the project made, by name; volumes of other drivers' own making count as well.
func namedVolumes(have compose.Snapshot) []string {
	var names []string
	for name, v := range have.Volumes {
		if v.Labels[compose.LabelVolume] != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// taking is a snapshot of volumes being taken: first, while containers rest, what they hold is cloned or, where that cannot be, read; then the rest is done.
type taking struct {
	e       *engine.Client
	store   snapshots.Store
	limit   int64 // bytes of a volume's archive; 0 is no limit
	volumes []snapshots.Volume
	clones  map[int]*snapshots.Clone // by their place among the volumes
}

func (t *taking) takeAll(ctx context.Context, have compose.Snapshot, names []string) error {
	for _, name := range names {
		if err := t.take(ctx, have.Volumes[name]); err != nil {
			return err
		}
	}
	return nil
}

// take takes what a volume holds.
func (t *taking) take(ctx context.Context, v compose.Volume) error {
	folder, err := t.e.VolumeFolder(ctx, v.Name)
	if err != nil {
		return err
	}
	saved := snapshots.Volume{Key: v.Labels[compose.LabelVolume], Name: v.Name, Driver: v.Driver, Labels: v.Labels}
	if folder != "" {
		clone, err := t.store.Clone(ctx, folder)
		if err == nil {
			if t.clones == nil {
				t.clones = map[int]*snapshots.Clone{}
			}
			t.clones[len(t.volumes)] = clone
			t.volumes = append(t.volumes, saved)
			return nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	err = readVolume(ctx, t.e, v.Name, folder, func(archive io.Reader) error {
		b, err := t.store.Add(ctx, archive, t.limit)
		saved.Blob, saved.Size, saved.Compressed = b.Digest, b.Size, b.Compressed
		return err
	})
	t.volumes = append(t.volumes, saved)
	return err
}

// finish reads and stores what was cloned.
func (t *taking) finish(ctx context.Context) ([]snapshots.Volume, error) {
	for i, clone := range t.clones {
		b, err := clone.Keep(ctx)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", t.volumes[i].Name, err)
		}
		t.volumes[i].Blob, t.volumes[i].Size, t.volumes[i].Compressed = b.Digest, b.Size, b.Compressed
	}
	return t.volumes, nil
}

// discard removes clones that are not to be kept.
func (t *taking) discard() error {
	var errs []error
	for _, clone := range t.clones {
		errs = append(errs, clone.Discard())
	}
	return errors.Join(errs...)
}

// readVolume gives the archive of a volume: from its folder, if that is known, with all extended attributes; else from the engine, whose archives have but some.
func readVolume(ctx context.Context, e *engine.Client, name, folder string, read func(archive io.Reader) error) error {
	if folder == "" {
		return e.ReadVolume(ctx, name, read)
	}
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(snapshots.Archive(ctx, folder, w))
	}()
	err := read(r)
	cancel()
	_ = r.Close() // the writer ends
	<-done
	return err
}

// Ways to bring a container to rest while its volumes are read; the label says which one a service needs.
const (
	restLabel = "dev.snapshot"
	restPause = "pause"
	restStop  = "stop"
	restNone  = "none"
)

// patience is how long one waits for another process that works on the project's volumes.
const patience = 30 * time.Second

// atRest runs do while the containers that mount the volumes rest, and lets them go on afterwards, however do ends. What an earlier process left at
// rest goes on first.
func (a *app) atRest(ctx context.Context, e *engine.Client, project string, containers []compose.Container, volumes []string, mode string, do func() error) error {
	store, err := a.snapshotStore()
	if err != nil {
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
	pending, err := restOf(containers, volumes, mode)
	if err != nil {
		return err
	}
	return a.resting(ctx, e, work, pending, do)
}

// resting brings containers to rest, runs do and lets them go on.
func (a *app) resting(ctx context.Context, e *engine.Client, work *snapshots.Work, pending snapshots.Pending, do func() error) (err error) {
	if len(pending.Paused)+len(pending.Stopped) == 0 {
		return do()
	}
	if err := work.Note(pending); err != nil {
		return err
	}
	defer func() {
		if e := errors.Join(a.goOn(ctx, e, pending), work.Done()); e != nil {
			err = errors.Join(err, e)
		}
	}()
	var plan compose.Plan
	for _, id := range pending.Paused {
		plan.Ops = append(plan.Ops, compose.Op{ID: len(plan.Ops) + 1, Kind: compose.OpPauseContainer, Target: "container " + id[:12], Ref: compose.Ref{ID: id}})
	}
	for _, id := range pending.Stopped {
		plan.Ops = append(plan.Ops, compose.Op{ID: len(plan.Ops) + 1, Kind: compose.OpStopContainer, Target: "container " + id[:12], Ref: compose.Ref{ID: id}})
	}
	if err := compose.Apply(ctx, plan, e, compose.Discard, compose.ApplyOptions{}); err != nil {
		return err
	}
	return do()
}

// restOf says which of the containers must rest, and how.
func restOf(containers []compose.Container, volumes []string, mode string) (snapshots.Pending, error) {
	var p snapshots.Pending
	for _, c := range containers {
		uses := slices.ContainsFunc(c.Mounts, func(m compose.Mount) bool { return m.Type == "volume" && slices.Contains(volumes, m.Name) })
		if !uses || c.State != compose.StateRunning {
			continue
		}
		how := mode
		if how == "" {
			how = c.Labels[restLabel]
		}
		switch how {
		case "", restPause:
			p.Paused = append(p.Paused, c.ID)
		case restStop:
			p.Stopped = append(p.Stopped, c.ID)
		case restNone:
		default:
			return p, fmt.Errorf("service %q: label %s is %q: use %s, %s or %s", c.Service(), restLabel, how, restPause, restStop, restNone)
		}
	}
	return p, nil
}

// goOn lets containers run again that were brought to rest. It is done even if the command was interrupted.
func (a *app) goOn(ctx context.Context, e *engine.Client, p snapshots.Pending) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restTimeout)
	defer cancel()
	var plan compose.Plan
	for _, id := range p.Paused {
		plan.Ops = append(plan.Ops, compose.Op{ID: len(plan.Ops) + 1, Kind: compose.OpUnpauseContainer, Target: "container " + id[:12], Ref: compose.Ref{ID: id}})
	}
	for _, id := range p.Stopped {
		plan.Ops = append(plan.Ops, compose.Op{ID: len(plan.Ops) + 1, Kind: compose.OpStartContainer, Target: "container " + id[:12], Ref: compose.Ref{ID: id}})
	}
	return compose.Apply(ctx, plan, e, compose.Discard, compose.ApplyOptions{})
}

// putRight finishes what a process that ended early left: containers at rest go on, those that still are there.
func (a *app) putRight(ctx context.Context, e *engine.Client, project string, work *snapshots.Work) error {
	left := work.Left
	if left == nil {
		return nil
	}
	have, err := e.Observe(ctx, compose.Query{Project: project, SkipNetworks: true, SkipVolumes: true})
	if err != nil {
		return err
	}
	var p snapshots.Pending
	for _, c := range have.Containers {
		if slices.Contains(left.Paused, c.ID) && c.State == compose.StatePaused {
			p.Paused = append(p.Paused, c.ID)
		}
		if slices.Contains(left.Stopped, c.ID) && c.State == compose.StateExited {
			p.Stopped = append(p.Stopped, c.ID)
		}
	}
	if n := len(p.Paused) + len(p.Stopped); n > 0 {
		a.say(fmt.Sprintf("an earlier snapshot was interrupted: %d containers go on", n))
		if err := a.goOn(ctx, e, p); err != nil {
			return err
		}
	}
	if left.Restoring != "" {
		return nil // the volumes are not right yet
	}
	return work.Done()
}
