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

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/environments"
	"github.com/seed71221737/dev/engine/snapshots"
)

func newEnvCreateCommand(a *app) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Make an environment, with empty volumes or copies of another one's",
		Long: `Gives the environment NAME its ports and subnets. In a linked git worktree NAME may be
left out. It is not needed before dev up, which makes the environment as well; with
--from the volumes start as copies of another environment's.`,
		Example: `  dev env create try --from main
  dev env create try --ports 31000-31099`,
		Args: takes(0, 1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.envName = args[0]
			}
			return a.runEnvCreate(c.Context(), from)
		},
	}
	c.Flags().StringVar(&a.envPorts, "ports", "", "take its host ports from `FIRST-LAST`")
	c.Flags().StringVar(&from, "from", "", "copy the volumes of the environment `OTHER`")
	return c
}

func (a *app) runEnvCreate(ctx context.Context, from string) error {
	h, err := a.environmentHere(ctx)
	if err != nil {
		return err
	}
	if h.place.name == environments.Main {
		return withHint(fmt.Errorf("the environment main is there always"), "name another one: dev env create NAME")
	}
	if _, err := a.provide(ctx, h.base, h.place, compose.Needs{}); err != nil {
		return err
	}
	if from != "" {
		if err := a.cloneVolumes(ctx, h, from); err != nil {
			return err
		}
	}
	if err := a.tellPlace(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, h.p.Name)
	return err
}

// cloneVolumes copies the volumes of another environment. Those that have content already stay.
func (a *app) cloneVolumes(ctx context.Context, h here, from string) error {
	if from == h.place.name {
		return usagef("an environment cannot be copied from itself")
	}
	if from != environments.Main && h.state.Find(h.base, from) == nil {
		return withHint(fmt.Errorf("no such environment: %s", from), "dev env ls")
	}
	source, err := a.loadIn(ctx, from, environments.ProjectName(h.base, from))
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, startsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.QueryFor(h.p))
	if err != nil {
		return err
	}
	there, err := e.Observe(ctx, compose.QueryFor(source))
	if err != nil {
		return err
	}
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(h.p.Volumes)) {
		if v, ok := source.Volumes[key]; ok && !bool(v.External) && there.Volumes[v.Name].Name != "" {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		a.say(fmt.Sprintf("environment %s has no volumes to copy", from))
		return nil
	}
	return a.cloneWhile(ctx, e, h.p, source, have, there, keys)
}

// cloneWhile copies volumes while what writes to them rests.
func (a *app) cloneWhile(ctx context.Context, e *engine.Client, p, source *types.Project, have, there compose.Snapshot, keys []string) error {
	var names []string
	for _, key := range keys {
		names = append(names, source.Volumes[key].Name)
	}
	return a.atRest(ctx, e, source.Name, there.Containers, names, "", func() error {
		for _, key := range keys {
			to := p.Volumes[key].Name
			if have.Volumes[to].Name == "" {
				spec, err := compose.NewVolumeSpec(p, key)
				if err != nil {
					return err
				}
				if _, err := e.Do(ctx, compose.Op{Kind: compose.OpCreateVolume, Volume: &spec}, nil, compose.Discard); err != nil {
					return err
				}
			} else if empty, err := e.VolumeEmpty(ctx, to); err != nil || !empty {
				if err != nil {
					return err
				}
				a.warn(fmt.Sprintf("volume %s has content already; it stays as it is", to))
				continue
			}
			if err := copyVolume(ctx, e, source.Volumes[key].Name, to); err != nil {
				return err
			}
			a.say(fmt.Sprintf("volume %s is a copy of %s", to, source.Volumes[key].Name))
		}
		return nil
	})
}

func newEnvRmCommand(a *app) *cobra.Command {
	var yes, noSnapshot bool
	c := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove environments: containers, networks, volumes, ports",
		Long: `Removes all that an environment has and forgets its ports. Its volumes are saved as a
snapshot first, from which dev snapshot restore brings them back.`,
		Args: takes(1, -1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, name := range args {
				if err := a.runEnvRm(c.Context(), name, yes, noSnapshot); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&noSnapshot, "no-snapshot", false, "do not save the volumes first")
	return c
}

func (a *app) runEnvRm(ctx context.Context, name string, yes, noSnapshot bool) error {
	if name == environments.Main {
		return withHint(fmt.Errorf("the environment main cannot be removed"), "dev --env main down -v removes what it has")
	}
	a.lookOnly = true
	base, r, err := a.recorded(ctx, name)
	if err != nil {
		return err
	}
	e, err := a.openEngine(ctx, startsEngine)
	if err != nil {
		return err
	}
	defer e.Close()
	have, err := e.Observe(ctx, compose.Query{Project: r.Project})
	if err != nil {
		return err
	}
	plan, err := compose.NewDownPlan(r.Project, nil, have, compose.DownOptions{Volumes: true, RemoveOrphans: true})
	if err != nil {
		return err
	}
	if a.dryRun {
		return a.showPlan(plan)
	}
	if !yes && len(plan.Destructive()) > 0 {
		ok, err := a.confirm(ctx, fmt.Sprintf("Remove environment %s with its volumes (%d)?", name, len(plan.Destructive())))
		if err != nil || !ok {
			return err
		}
	}
	if !noSnapshot {
		a.envName = name // for the command that brings them back
		if err := a.saveBefore(ctx, e, r.Project, have, plan, "env rm"); err != nil {
			return err
		}
	}
	if err := a.applyAndExplain(ctx, e, nil, plan, applyOptions{heading: "env rm"}); err != nil {
		return err
	}
	store, err := a.environmentStore()
	if err != nil {
		return err
	}
	return store.Update(ctx, func(s *environments.State) error { s.Forget(base, name); return nil })
}

// recorded finds an environment of the project here; where there is no project, one of any project, if the name is unique.
func (a *app) recorded(ctx context.Context, name string) (base string, r environments.Record, err error) {
	store, err := a.environmentStore()
	if err != nil {
		return "", r, err
	}
	state, err := store.Read()
	if err != nil {
		return "", r, err
	}
	unknown := withHint(fmt.Errorf("no such environment: %s", name), "dev env ls --all")
	if h, err := a.environmentHere(ctx); err == nil {
		if found := state.Find(h.base, name); found != nil {
			return h.base, *found, nil
		}
		return "", r, unknown
	}
	var found []environments.Record
	for _, r := range state.Environments {
		if r.Name == name || r.Project == name {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return "", r, unknown
	}
	return found[0].Base, found[0], nil
}

// copyVolume copies the content of a volume to an empty one: in an instant, where their files can share blocks.
func copyVolume(ctx context.Context, e *engine.Client, from, to string) error {
	src, err := e.VolumeFolder(ctx, from)
	if err != nil {
		return err
	}
	dst, err := e.VolumeFolder(ctx, to)
	if err != nil {
		return err
	}
	if src != "" && dst != "" {
		if err := snapshots.CloneFolder(ctx, dst, src); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return readVolume(ctx, e, from, src, func(archive io.Reader) error { return e.FillVolume(ctx, to, archive) })
}

// restTimeout bounds bringing containers to rest and back.
const restTimeout = 5 * time.Minute
