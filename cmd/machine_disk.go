// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
)

// growDisk has a machine that runs take up its larger disk at once, and says whether that worked. What does not work now, the next start does.
func (m *machines) growDisk(ctx context.Context, one *machine.Machine) bool {
	err := one.Agent().GrowDisk(ctx, int64(one.Spec.DiskMiB)<<20)
	disk := mebibytes(one.Spec.DiskMiB)
	var refused *hostagent.RefusedError
	switch {
	case err == nil:
		m.say(fmt.Sprintf("Machine %q has the disk of %s already.", one.Name, disk.String()))
		return true
	case errors.As(err, &refused):
		m.say(fmt.Sprintf("Machine %q gets the disk of %s at its next start: %s", one.Name, disk.String(), refused.Text))
	default:
		m.warn(fmt.Sprintf("machine %q gets the disk of %s at its next start: %v", one.Name, disk.String(), err))
	}
	return false
}

// shrinkDisk replaces a machine's disk by a smaller copy. A machine that runs is stopped for it if restart says so, and started again, which proves the
// new disk: then the old one goes.
func (m *machines) shrinkDisk(ctx context.Context, one *machine.Machine, size mebibytes, restart bool) error {
	status, cancel := context.WithTimeout(ctx, answerWait)
	runs := one.Status(status).Agent != nil
	cancel()
	if runs && !restart {
		return withHint(fmt.Errorf("make the disk of machine %q smaller: it is running", one.Name), "%s stops it for that, and starts it again", m.typed("edit", "--disk", strconv.Itoa(int(size)), "--restart", one.Name))
	}
	if runs {
		if err := one.Stop(ctx, machine.StopOptions{Cold: true}, m.tell()); err != nil {
			return err
		}
	}
	old, err := one.Shrink(ctx, int(size), m.tell())
	if err != nil {
		if runs {
			startErr := one.Start(context.WithoutCancel(ctx), m.tell())
			m.showStartFailure(startErr)
			err = errors.Join(err, startErr)
		}
		return err
	}
	m.say(fmt.Sprintf("Machine %q has a disk of %s now.", one.Name, size.String()))
	if !runs {
		m.say(fmt.Sprintf("The disk as it was is kept as snapshot %q. When the machine works with the new one: %s", old, m.typed("snapshot", "rm", one.Name, old)))
		return nil
	}
	if err := one.Start(ctx, m.tell()); err != nil {
		m.showStartFailure(err)
		return withHint(err, "the disk as it was is kept: %s brings it back", m.typed("snapshot", "restore", one.Name, old))
	}
	return one.ForgetShrunk(ctx, old)
}

// takesStart says whether a change of a spec takes effect only when the machine is started.
func takesStart(before, after machine.Spec, grown bool) bool {
	if grown {
		before.DiskMiB = after.DiskMiB
	}
	return describeSpec(before) != describeSpec(after) || before.MemoryReclaim != after.MemoryReclaim
}
