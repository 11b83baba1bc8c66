// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
)

func newMachineCompactCommand(m *machines) *cobra.Command {
	return &cobra.Command{
		Use:   "compact [OPTIONS] [MACHINE...]",
		Short: "Give back to this host what was deleted on machines' disks",
		Long: `Give back to this host what was deleted on machines' disks, default if none is
named. One that runs goes on; one that is stopped boots its image for this and
nothing else, after which its next start boots, too. It can be interrupted and
repeated, and loses nothing.

Machines do this by themselves after images were removed and once a day, when they
have nothing else to do.`,
		Example: `  dev machine compact
  dev machine compact box web`,
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			t := table{header: []string{"NAME", "DISK", "BEFORE", "AFTER", "GIVEN BACK"}}
			var mu sync.Mutex
			err := m.each(c.Context(), args, func(ctx context.Context, one *machine.Machine) error {
				row, err := m.compact(ctx, one)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				t.add(row...)
				return nil
			})
			if len(t.rows) > 0 {
				if err := t.write(m.out); err != nil {
					return err
				}
			}
			return err
		},
	}
}

// compact compacts one machine, and tells what its disk takes up before and after.
func (m *machines) compact(ctx context.Context, one *machine.Machine) ([]string, error) {
	before, err := one.Usage()
	if err != nil {
		return nil, err
	}
	status, cancel := context.WithTimeout(ctx, answerWait)
	up := one.Status(status).Phase.Up()
	cancel()
	if up {
		err = m.trim(ctx, one)
	} else {
		err = one.Compact(ctx, m.tell())
	}
	if err != nil {
		return nil, fmt.Errorf("compact machine %q: %w", one.Name, err)
	}
	after, err := one.Usage()
	if err != nil {
		return nil, err
	}
	return []string{one.Name, size(after.DiskSize), size(before.Disk), size(after.Disk), size(max(before.Disk-after.Disk, 0))}, nil
}
