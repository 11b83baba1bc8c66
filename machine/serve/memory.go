// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"log/slog"

	"github.com/seed71221737/dev/hostagent/daemon"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

// memory is a machine's saved memory as the agent wants it.
type memory struct {
	machine *machine.Machine
	keeper  saved.Keeper
}

var _ daemon.Memory = (*memory)(nil)

// newMemory is nil for machines whose driver does not save memory.
func newMemory(store *machine.Store, m *machine.Machine, log *slog.Logger) daemon.Memory {
	if _, ok := store.Drivers[m.Spec.Driver].(machine.Saver); !ok {
		return nil
	}
	return &memory{m, saved.Keeper{Dir: m.Dir.Memory(), Disk: m.Dir.DataDisk(), Facts: m.MemoryFacts, Logger: log}}
}

func (y *memory) Take(ctx context.Context) (daemon.Saved, error) {
	if state, _ := saved.Read(y.keeper.Dir); state != nil && y.machine.DiskToGrow() {
		const why = "it was saved with a smaller disk"
		return daemon.Saved{Why: why}, y.keeper.Drop(ctx, why)
	}
	state, why, err := y.keeper.Take(ctx)
	if err != nil || state == nil {
		return daemon.Saved{Why: why}, err
	}
	return daemon.Saved{File: state.Path(), Suspended: state.Suspended, Notes: state.Notes}, nil
}

func (y *memory) Consume(ctx context.Context) error { return y.keeper.Consume(ctx) }

func (y *memory) New() string { return y.keeper.New() }

func (y *memory) Commit(ctx context.Context, s daemon.Saved) error {
	if err := y.keeper.Commit(ctx, s.Suspended, s.Notes); err != nil {
		return err
	}
	if err := y.machine.ShrinkLater(); err != nil {
		y.keeper.Logger.Warn("saved memory stays as large as it is", "error", err)
	}
	return nil
}

func (y *memory) Drop(ctx context.Context, why string) error { return y.keeper.Drop(ctx, why) }
