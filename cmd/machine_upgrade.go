// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
)

type machineUpgrade struct {
	image                                    string
	build, rollback, dryRun, noSnapshot, yes bool
	timeout                                  int
}

func newMachineUpgradeCommand(m *machines) *cobra.Command {
	var o machineUpgrade
	c := &cobra.Command{
		Use:   "upgrade [OPTIONS] [MACHINE...]",
		Short: "Boot machines with a newer image and engine",
		Long: `Boot machines with the newest image on this host, or the one named. Containers,
images and volumes are on the machine's own disk, which no upgrade touches, and
which is saved as a snapshot first.

The new image has to prove itself: the machine starts with it, engine and guest are
well, and the containers that ran run again. Else the machine goes back to its old
image by itself, and the command fails. A machine that was stopped is stopped again.
An upgrade that was interrupted is finished, or taken back, by the next command.`,
		Example: `  dev machine upgrade
  dev machine upgrade --dry-run box       what would be done
  dev machine upgrade --image ./image box
  dev machine upgrade --rollback box      back to the image before`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			return m.each(c.Context(), args, func(ctx context.Context, one *machine.Machine) error { return m.runUpgrade(ctx, one, o) })
		},
	}
	f := c.Flags()
	f.StringVar(&o.image, "image", "", "`IMAGE` to boot: a tag, a digest, or a folder with an image")
	f.BoolVar(&o.build, "build-image", false, "build the image first if there is none")
	f.BoolVar(&o.rollback, "rollback", false, "go back to the image before the last upgrade")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done, and whether it can be")
	f.BoolVar(&o.noSnapshot, "no-snapshot", false, "do not save the disk first")
	f.IntVarP(&o.timeout, "timeout", "t", 0, "`SECONDS` that the machine may take to be well once its engine answers (default 180)")
	f.BoolVarP(&o.yes, "yes", "y", false, "go on without a snapshot where there is no room for one")
	c.MarkFlagsMutuallyExclusive("rollback", "image")
	c.MarkFlagsMutuallyExclusive("rollback", "build-image")
	return c
}

func (m *machines) runUpgrade(ctx context.Context, one *machine.Machine, o machineUpgrade) error {
	x := machine.UpgradeOptions{Rollback: o.rollback, NoSnapshot: o.noSnapshot, Patience: inSeconds(o.timeout)}
	if !o.rollback {
		var err error
		if x.Image, err = m.imageFor(ctx, o.image, one.Spec.Arch, o.build); err != nil {
			return err
		}
	}
	if o.dryRun {
		plan, err := one.PlanUpgrade(ctx, x)
		if err != nil {
			return err
		}
		return m.printLines(upgradeLines(plan))
	}
	result, err := one.Upgrade(ctx, x, m.tell())
	if full, ok := errors.AsType[*machine.NoRoomError](err); ok && !o.noSnapshot {
		if x.NoSnapshot, err = m.withoutSnapshot(ctx, one.Name, full, o.yes); err != nil {
			return err
		}
		result, err = one.Upgrade(ctx, x, m.tell())
	}
	if err != nil {
		m.showStartFailure(err)
		return err
	}
	m.say(upgradeDone(one.Name, result, o.rollback))
	return nil
}

// withoutSnapshot asks whether to go on without a snapshot, for which there is no room.
func (m *machines) withoutSnapshot(ctx context.Context, name string, full *machine.NoRoomError, yes bool) (bool, error) {
	m.warn(fmt.Sprintf("(%s) %v", name, full))
	if yes {
		return true, nil
	}
	agreed, err := m.confirm(ctx, fmt.Sprintf("Upgrade machine %s without a snapshot of its disk?", name))
	if err == nil && !agreed {
		err = withHint(full, "%s; --no-snapshot goes on without one", full.Hint())
	}
	return agreed, err
}

func upgradeDone(name string, r machine.UpgradeResult, rollback bool) string {
	switch {
	case !r.Changed:
		return fmt.Sprintf("Machine %q has this image already.", name)
	case rollback:
		return fmt.Sprintf("Machine %q has its image from before the upgrade.", name)
	case r.Snapshot != "":
		return fmt.Sprintf("Machine %q is upgraded. What was there before is snapshot %s.", name, r.Snapshot)
	}
	return fmt.Sprintf("Machine %q is upgraded.", name)
}

// upgradeLines tells what an upgrade would do.
func upgradeLines(p machine.UpgradePlan) []string {
	if p.Same() {
		return []string{fmt.Sprintf("Machine %q has image %s already: nothing to do.", p.Machine, p.New.Digest[:12])}
	}
	lines := []string{fmt.Sprintf("Machine %q would be upgraded:", p.Machine)}
	for _, row := range [][3]string{{"image", p.Old.Digest[:12], p.New.Digest[:12]}, {"engine", p.Old.Engine, p.New.Engine}, {"kernel", p.Old.Kernel, p.New.Kernel}} {
		if row[1] != row[2] {
			lines = append(lines, fmt.Sprintf("  %-8s %s -> %s", row[0], row[1], row[2]))
		}
	}
	switch {
	case p.NoRoom != nil:
		lines = append(lines, "  its disk would not be saved: "+p.NoRoom.Error())
	case p.Snapshot:
		lines = append(lines, "  its disk is saved as a snapshot first")
	default:
		lines = append(lines, "  its disk is not saved first")
	}
	if p.Runs {
		lines = append(lines, "  it is stopped, started with the new image, and runs afterwards with the containers that run now")
	} else {
		lines = append(lines, "  it is started with the new image to see whether that works, and stopped again")
	}
	for _, w := range p.Warnings {
		lines = append(lines, "  "+w)
	}
	return lines
}

// sizeText is a number of bytes as the machine commands show it.
func sizeText(n int64) string { return units.BytesSize(float64(n)) }
