// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/machine"
)

func newMachineSuspendCommand(m *machines) *cobra.Command {
	return m.actionCommand(machineAction{
		name: "suspend", short: "Save machines with all that runs in them, and free their memory", done: "Machine %q is suspended.",
		long: `Save the memory of machines, default if none is named, and end their virtual machines:
they take no memory and no processor any more. Their containers go on where they were
with dev machine resume, also after this computer was off. Meanwhile their engines
do not answer; open connections end.

A machine that nobody uses falls asleep by itself, and wakes for the first who does.`,
		do: func(ctx context.Context, one *machine.Machine) error { return one.Suspend(ctx, m.tell()) },
	})
}

func newMachineResumeCommand(m *machines) *cobra.Command {
	return m.actionCommand(machineAction{
		name: "resume", short: "Let suspended machines go on", done: "Machine %q runs.",
		long: `Bring suspended machines back, default if none is named, with all that ran in them;
clock, network and shared folders are renewed. A machine that is stopped is started.`,
		do: func(ctx context.Context, one *machine.Machine) error { return one.Resume(ctx, m.tell()) },
	})
}
