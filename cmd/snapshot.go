// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/snapshots"
)

func newSnapshotCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "snapshot COMMAND",
		Short:   "Save what an application's volumes hold, and bring it back",
		GroupID: groupRun,
		Long: `A snapshot is a copy of all volumes of the application at one moment, kept in
~/.dev/snapshots, compressed and checked. Containers that use the volumes are paused
while they are read; the label dev.snapshot=stop on a service has it stopped,
dev.snapshot=none lets it run.

dev down -v takes one by itself before it removes volumes.`,
		Example: `  dev snapshot save before-migration
  dev snapshot restore before-migration
  dev snapshot diff before-migration
  dev snapshot ls`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return c.Help()
		},
	}
	c.AddCommand(newSnapshotSaveCommand(a), newSnapshotLsCommand(a), newSnapshotRestoreCommand(a), newSnapshotRmCommand(a), newSnapshotDiffCommand(a))
	return c
}

// snapshotStore is where snapshots are kept.
func (a *app) snapshotStore() (snapshots.Store, error) {
	dir, err := a.userDir()
	return snapshots.Store{Dir: filepath.Join(dir, snapshots.DirName)}, err
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string { return units.HumanSize(float64(n)) }

type snapshotLsOptions struct {
	all, quiet bool
	format     string
}

func newSnapshotLsCommand(a *app) *cobra.Command {
	var o snapshotLsOptions
	c := &cobra.Command{
		Use:   "ls",
		Short: "List snapshots, oldest first",
		Args:  takes(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runSnapshotLs(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "list those of all projects")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show only names")
	f.StringVar(&o.format, "format", "table", "table or json")
	return c
}

func (a *app) runSnapshotLs(ctx context.Context, o snapshotLsOptions) error {
	if o.format != "table" && o.format != "json" {
		return unknownFormat(o.format, "table", "json")
	}
	store, err := a.snapshotStore()
	if err != nil {
		return err
	}
	var projects []string
	if o.all {
		projects, err = store.Projects()
	} else {
		var name string
		name, err = a.projectNameOnly(ctx)
		projects = []string{name}
	}
	if err != nil {
		return err
	}
	all := []snapshots.Snapshot{}
	var errs []error
	for _, p := range projects {
		list, err := store.List(p)
		all, errs = append(all, list...), append(errs, err)
	}
	return errors.Join(a.showSnapshots(all, o), errors.Join(errs...))
}

func (a *app) showSnapshots(all []snapshots.Snapshot, o snapshotLsOptions) error {
	switch {
	case o.quiet:
		var names []string
		for _, s := range all {
			names = append(names, s.Name)
		}
		return a.printLines(names)
	case o.format == "json":
		return writeJSON(a.out, all)
	}
	t := table{header: []string{"NAME", "PROJECT", "CREATED", "VOLUMES", "SIZE", "ON DISK", "REASON"}}
	for _, s := range all {
		why := s.Reason
		if s.Note != "" {
			why = s.Note
		}
		t.add(s.Name, s.Project, units.HumanDuration(time.Since(s.Created))+" ago", fmt.Sprint(len(s.Volumes)), bytesText(s.Size()), bytesText(s.Compressed()), why)
	}
	return t.write(a.out)
}

func newSnapshotRmCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove snapshots",
		Args:    takes(1, -1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			store, err := a.snapshotStore()
			if err != nil {
				return err
			}
			project, err := a.projectNameOnly(c.Context())
			if err != nil {
				return err
			}
			freed, err := store.Remove(c.Context(), project, args...)
			if err == nil {
				a.say(fmt.Sprintf("%s freed", bytesText(freed)))
			}
			return err
		},
	}
	return c
}

type snapshotDiffOptions struct {
	stat   bool
	format string
}

func newSnapshotDiffCommand(a *app) *cobra.Command {
	var o snapshotDiffOptions
	c := &cobra.Command{
		Use:   "diff NAME [OTHER]",
		Short: "Show which files differ between a snapshot and the volumes now, or another snapshot",
		Long: `Shows the files that were added (A), deleted (D) and modified (M) since the snapshot:
in content, owner, mode or kind. Times do not count.`,
		Args: takes(1, 2, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runSnapshotDiff(c.Context(), o, args)
		},
	}
	c.Flags().BoolVar(&o.stat, "stat", false, "show only how many files differ")
	c.Flags().StringVar(&o.format, "format", "text", "text or json")
	return c
}

// volumeDiff is how one volume differs.
type volumeDiff struct {
	Volume  string                 `json:"volume"`
	State   string                 `json:"state,omitempty"` // "only before", "only after"
	Changes []snapshots.FileChange `json:"changes"`
}

func (a *app) runSnapshotDiff(ctx context.Context, o snapshotDiffOptions, args []string) error {
	if o.format != "text" && o.format != "json" {
		return unknownFormat(o.format, "text", "json")
	}
	store, err := a.snapshotStore()
	if err != nil {
		return err
	}
	project, err := a.projectNameOnly(ctx)
	if err != nil {
		return err
	}
	before, err := store.Get(project, args[0])
	if err != nil {
		return err
	}
	var diffs []volumeDiff
	if len(args) == 2 {
		after, err := store.Get(project, args[1])
		if err != nil {
			return err
		}
		diffs, err = diffVolumes(store, before, volumeNames(after), func(name string, read func(io.Reader) error) error {
			return readBlob(store, after, name, read)
		})
		if err != nil {
			return err
		}
	} else if diffs, err = a.diffNow(ctx, store, before); err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(a.out, diffs)
	}
	return a.printLines(diffLines(diffs, o.stat))
}

func volumeNames(s snapshots.Snapshot) map[string]bool {
	names := map[string]bool{}
	for _, v := range s.Volumes {
		names[v.Key] = true
	}
	return names
}

// readBlob gives the archive of a volume in a snapshot.
func readBlob(store snapshots.Store, s snapshots.Snapshot, key string, read func(io.Reader) error) error {
	for _, v := range s.Volumes {
		if v.Key != key {
			continue
		}
		r, err := store.Open(v.Blob)
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	}
	return fmt.Errorf("snapshot %q has no volume %q", s.Name, key)
}

// diffVolumes compares the volumes of a snapshot with others, which after gives.
func diffVolumes(store snapshots.Store, before snapshots.Snapshot, there map[string]bool, after func(key string, read func(io.Reader) error) error) ([]volumeDiff, error) {
	diffs := []volumeDiff{}
	for _, v := range before.Volumes {
		d := volumeDiff{Volume: v.Key, Changes: []snapshots.FileChange{}}
		if !there[v.Key] {
			d.State = "only before"
			diffs = append(diffs, d)
			continue
		}
		delete(there, v.Key)
		err := readBlob(store, before, v.Key, func(old io.Reader) error {
			return after(v.Key, func(now io.Reader) (err error) {
				d.Changes, err = snapshots.Diff(old, now)
				return err
			})
		})
		if err != nil {
			return nil, err
		}
		diffs = append(diffs, d)
	}
	for key := range there {
		diffs = append(diffs, volumeDiff{Volume: key, State: "only after", Changes: []snapshots.FileChange{}})
	}
	return diffs, nil
}

func diffLines(diffs []volumeDiff, stat bool) []string {
	var lines []string
	for _, d := range diffs {
		switch {
		case d.State != "":
			lines = append(lines, fmt.Sprintf("volume %s is there %s", d.Volume, d.State))
		case stat:
			lines = append(lines, fmt.Sprintf("volume %s: %d files differ", d.Volume, len(d.Changes)))
		}
		for _, c := range d.Changes {
			if !stat {
				lines = append(lines, fmt.Sprintf("%s %s:%s", c.Kind, d.Volume, c.Path))
			}
		}
	}
	return lines
}

// diffNow compares a snapshot with what the volumes hold now.
func (a *app) diffNow(ctx context.Context, store snapshots.Store, before snapshots.Snapshot) ([]volumeDiff, error) {
	e, err := a.openEngine(ctx, wantsEngine)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: before.Project, SkipNetworks: true})
	if err != nil {
		return nil, err
	}
	names, there := map[string]string{}, map[string]bool{}
	for _, name := range namedVolumes(have) {
		key := have.Volumes[name].Labels[compose.LabelVolume]
		names[key], there[key] = name, true
	}
	return diffVolumes(store, before, there, func(key string, read func(io.Reader) error) error {
		folder, err := e.VolumeFolder(ctx, names[key])
		if err != nil {
			return err
		}
		return readVolume(ctx, e, names[key], folder, read)
	})
}
