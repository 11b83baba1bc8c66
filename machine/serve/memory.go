// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"log/slog"

	"github.com/seed71221737/dev/hostagent/daemon"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

// memory is a machine's saved memory as the agent wants it.
type memory struct {
	machine   *machine.Machine
	keeper    saved.Keeper
	templates *saved.Templates
	// template is the one that was taken, draft the one that is being made for machines with the facts fresh, which are those of one that never ran.
	template *saved.Template
	draft    *saved.Draft
	fresh    []saved.Fact
}

var (
	_ daemon.Memory    = (*memory)(nil)
	_ daemon.Templater = (*memory)(nil)
)

// newMemory is nil for machines whose driver does not save memory.
func newMemory(store *machine.Store, m *machine.Machine, log *slog.Logger) daemon.Memory {
	if _, ok := store.Drivers[m.Spec.Driver].(machine.Saver); !ok {
		return nil
	}
	return &memory{
		machine: m, templates: store.Templates(),
		keeper: saved.Keeper{Dir: m.Dir.Memory(), Disk: m.Dir.DataDisk(), Facts: m.MemoryFacts, Logger: log},
	}
}

func (y *memory) Take(ctx context.Context) (daemon.Saved, error) {
	if state, _ := saved.Read(y.keeper.Dir); state != nil && y.machine.DiskToGrow() {
		const why = "it was saved with a smaller disk"
		return daemon.Saved{Why: why}, y.keeper.Drop(ctx, why)
	}
	state, why, err := y.keeper.Take(ctx)
	switch {
	case err != nil || why != "":
		return daemon.Saved{Why: why}, err
	case state != nil:
		return daemon.Saved{File: state.Path(), Suspended: state.Suspended, Notes: state.Notes}, nil
	}
	if empty, err := saved.Empty(y.keeper.Disk); err != nil || !empty {
		return daemon.Saved{}, err
	}
	return y.takeTemplate(ctx)
}

// takeTemplate finds a template for a machine that has never run, or notes that one is wanted. Whatever is wrong with templates, the machine can boot.
func (y *memory) takeTemplate(ctx context.Context) (daemon.Saved, error) {
	facts, err := y.machine.TemplateFacts(ctx)
	if err != nil {
		return daemon.Saved{}, err
	}
	t, why, err := y.templates.Take(ctx, facts)
	if err == nil && t == nil {
		y.fresh = facts
	}
	if err != nil || t == nil {
		y.keeper.Logger.Info("no template to start from", "why", why, "error", err)
		return daemon.Saved{}, nil
	}
	if err := t.CopyDisk(ctx, y.keeper.Disk); err != nil {
		t.Release()
		y.keeper.Logger.Warn("a template's disk could not be copied", "error", err)
		return daemon.Saved{}, ctx.Err()
	}
	y.template = t
	return daemon.Saved{File: t.Path(), Template: true, Notes: t.Notes}, nil
}

func (y *memory) Consume(ctx context.Context) error {
	if t := y.template; t != nil {
		y.template = nil
		t.Release()
		return nil
	}
	return y.keeper.Consume(ctx)
}

func (y *memory) Template(context.Context) (file string, wanted bool) {
	if y.fresh == nil || y.templates.Has(y.fresh) {
		return "", false
	}
	d, err := y.templates.New(y.fresh)
	if err != nil {
		y.keeper.Logger.Warn("no template is made", "error", err)
		return "", false
	}
	y.draft, y.fresh = d, nil
	return d.File(), true
}

func (y *memory) Paused(ctx context.Context) error { return y.draft.CopyDisk(ctx, y.keeper.Disk) }

func (y *memory) CommitTemplate(_ context.Context, s daemon.Saved) error {
	d := y.draft
	y.draft = nil
	if err := d.Commit(s.Notes); err != nil {
		return err
	}
	y.shrink()
	return nil
}

func (y *memory) shrink() {
	if err := y.machine.ShrinkLater(); err != nil {
		y.keeper.Logger.Warn("saved memory stays as large as it is", "error", err)
	}
}

func (y *memory) New(ctx context.Context) (file string, still func(context.Context) error, err error) {
	file, err = y.keeper.New(ctx)
	return file, y.keeper.Still, err
}

func (y *memory) Commit(ctx context.Context, s daemon.Saved) error {
	if err := y.keeper.Commit(ctx, s.Suspended, s.Notes); err != nil {
		return err
	}
	y.shrink()
	return nil
}

func (y *memory) Drop(ctx context.Context, why string) (err error) {
	if d := y.draft; d != nil {
		y.draft, err = nil, d.Discard()
	}
	if t := y.template; t != nil {
		y.template = nil
		return errors.Join(err, t.Remove(why))
	}
	return errors.Join(err, y.keeper.Drop(ctx, why))
}
