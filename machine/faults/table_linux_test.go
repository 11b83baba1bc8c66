// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import "testing"

// fault is one row of docs/reliability.md.
type fault struct {
	// Name is the subtest of TestVMFaults that makes it happen, if there is one.
	Name string
	// Group is the heading it stands under. What, How and Promise are for the reader: the fault, how it is produced, what holds afterwards.
	Group, What, How, Promise string
	// Tests are further tests that produce it, as package.TestName.
	Tests []string
	// Slow ones run with DEV_TEST_VM=all only.
	Slow bool

	produce func(*testing.T, *lab)
}

// table is all faults, in the order of the document.
func table() []fault {
	return []fault{
		{
			Name: "kill-agent", Group: "Something dies", What: "the host agent is killed", How: "`kill -9` while the machine runs", produce: killAgent,
			Promise: "`ls` says so; the next `start` powers the orphaned VM off in order and starts it again; synced data is there",
		},
		{
			Name: "kill-vm", Group: "Something dies", What: "the VM's process is killed", How: "`kill -9` of QEMU while the machine runs", produce: killVM,
			Promise: "the agent ends and puts its sockets away; the next `start` replays the journals; synced data is there",
		},
		{
			Name: "kill-both", Group: "Something dies", What: "both are killed", How: "`kill -9` of both at once", produce: killBoth, Slow: true,
			Promise: "stale sockets do no harm; as above",
		},
		{
			Name: "kill-cli-at-start", Group: "Something dies", What: "the command is killed", How: "`kill -9` of `dev machine start` at each of its stages", produce: killAtStart(""), Slow: true,
			Promise: "the start goes on in the agent; the next command waits for it or begins anew",
		},
		{
			Name: "kill-agent-at-start", Group: "Something dies", What: "the host agent is killed", How: "`kill -9` at each stage of a start", produce: killAtStart("hostagent"), Slow: true,
			Promise: "the command says at which stage and why; the next `start` works",
		},
		{
			Name: "kill-vm-at-start", Group: "Something dies", What: "the VM's process is killed", How: "`kill -9` at each stage of a start", produce: killAtStart("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "kill-cli-at-stop", Group: "Something dies", What: "the command is killed", How: "`kill -9` of `dev machine stop` at four moments", produce: killAtStop(""), Slow: true,
			Promise: "the stop goes on in the agent; the next `start` waits for it",
		},
		{
			Name: "kill-agent-at-stop", Group: "Something dies", What: "the host agent is killed", How: "`kill -9` at four moments of a stop", produce: killAtStop("hostagent"), Slow: true,
			Promise: "the next `start` finds what is left and goes on from there",
		},
		{
			Name: "kill-vm-at-stop", Group: "Something dies", What: "the VM's process is killed", How: "`kill -9` at four moments of a stop", produce: killAtStop("qemu-system"), Slow: true,
			Promise: "the stop ends; nothing that was synced is lost",
		},
		{
			Name: "engine-crash-loop", Group: "Something dies", What: "the engine crashes again and again", How: "`kill -9` of dockerd in the machine, three times", produce: engineCrashes,
			Promise: "it is started again each time and serves the same socket",
		},
		{
			Name: "suspended", Group: "Saved memory", What: "the machine is suspended with a container", How: "`dev machine suspend`, then `resume`", produce: suspended,
			Promise: "the container is the same, not one started anew; no VM runs meanwhile",
		},
		{
			Name: "kill-cli-at-suspend", Group: "Saved memory", What: "the command is killed", How: "`kill -9` of `dev machine suspend` at four moments", produce: killAtSuspend(""), Slow: true,
			Promise: "the agent goes on; the next `start` has the machine with its containers",
		},
		{
			Name: "kill-agent-at-suspend", Group: "Saved memory", What: "the host agent is killed", How: "`kill -9` at four moments of a suspend", produce: killAtSuspend("hostagent"), Slow: true,
			Promise: "either the state is whole and used, or the machine boots; what was synced is there",
		},
		{
			Name: "kill-vm-at-suspend", Group: "Saved memory", What: "the VM's process is killed", How: "`kill -9` at four moments of a suspend", produce: killAtSuspend("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "kill-cli-at-resume", Group: "Saved memory", What: "the command is killed", How: "`kill -9` of `dev machine resume` at four moments", produce: killAtResume(""), Slow: true,
			Promise: "the agent goes on; the next `start` waits for it",
		},
		{
			Name: "kill-agent-at-resume", Group: "Saved memory", What: "the host agent is killed", How: "`kill -9` at four moments of a resume", produce: killAtResume("hostagent"), Slow: true,
			Promise: "a state is used once: either it was not begun with and is used now, or the machine boots from its disk",
		},
		{
			Name: "kill-vm-at-resume", Group: "Saved memory", What: "the VM's process is killed", How: "`kill -9` at four moments of a resume", produce: killAtResume("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "bad-state", Group: "Saved memory", What: "the saved memory is torn, damaged, empty, or of another disk", How: "the file is truncated or changed; the disk is replaced by a copy", produce: badState,
			Promise: "it is dropped with one line that says why, and the machine boots from its disk",
		},
		{
			Name: "used-state", Group: "Saved memory", What: "an old state comes back", How: "a state is copied, used, the VM killed, and the copy put back", produce: usedState,
			Promise: "it is not used a second time: the disk has gone on",
		},
		{
			Name: "two-starts", Group: "Two at once", What: "two terminals start the machine", How: "two `dev machine start` at the same moment", produce: twoStarts,
			Promise: "both succeed; one agent and one VM run",
		},
		{
			Name: "power-cut", Group: "Disks", What: "the host loses power", How: "the disk is copied while a container writes and syncs; the machine starts from the copy", produce: powerCut,
			Promise: "the journals are replayed; what was synced before is there; the engine comes up",
		},
		{
			Name: "guest-disk-full", Group: "Disks", What: "the machine's disk is full", How: "a container fills it to the last byte", produce: fullGuestDisk,
			Promise: "the writer is told; the engine goes on answering; the machine says what is full and what to do; after freeing all works",
		},
		{
			Name: "host-disk-full", Group: "Disks", What: "the host's disk is full", How: "the machine's folder is on a small file system that a container's writes fill", produce: hostDiskFull, Slow: true,
			Promise: "the VM stands still rather than see broken disks, and the machine says why; after freeing it goes on by itself, and the container has not noticed",
		},
		{
			Name: "guest-out-of-memory", Group: "Memory and time", What: "the machine's memory is used up", How: "a container fills a tmpfs larger than the machine", produce: guestOutOfMemory,
			Promise: "the container dies, not the engine, nor the machine",
		},
		{
			Name: "guest-clock", Group: "Memory and time", What: "the guest's clock is wrong", How: "it is set 12 hours back, then 12 hours ahead", produce: guestClock,
			Promise: "the agent puts it right within seconds",
		},
		{
			Name: "newer-spec", Group: "Files", What: "the spec is of a newer dev, truncated, or empty", How: "`machine.yaml` is replaced", produce: newerSpec,
			Promise: "commands name the file and the reason and touch nothing; with the old file back all is as before",
		},
	}
}
