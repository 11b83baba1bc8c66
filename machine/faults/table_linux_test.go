// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import "testing"

// fault is one row of docs/reliability.md.
type fault struct {
	// Name is the subtest of TestVMFaults that makes it happen, if there is one.
	Name string
	// Group is the heading it stands under. What, How and Promise are for the reader: the fault, how it is produced, what holds afterwards.
	Group, What, How, Promise string
	// Tests are further tests that produce it, as folder.TestName, with real machines or with stand-ins.
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
			Tests:   []string{"machine.TestKillAgent"},
		},
		{
			Name: "kill-vm", Group: "Something dies", What: "the VM's process is killed", How: "`kill -9` of QEMU while the machine runs", produce: killVM,
			Promise: "the agent ends and puts its sockets away; the next `start` replays the journals; synced data is there",
			Tests:   []string{"machine.TestKillVM", "hostagent/daemon.TestTheMachineEndsByItself"},
		},
		{
			Name: "kill-both", Group: "Something dies", What: "both are killed", How: "`kill -9` of both at once", produce: killBoth, Slow: true,
			Promise: "stale sockets do no harm; as above",
			Tests:   []string{"machine.TestKillBoth", "hostagent/daemon.TestStaleSocketsAreReplaced"},
		},
		{
			Name: "kill-cli-at-start", Group: "Something dies", What: "the command is killed", How: "`kill -9` of `dev machine start` at each of its stages, from memory and booting", produce: killAtStart(""), Slow: true,
			Promise: "the start goes on in the agent; the next command waits for it or begins anew",
			Tests:   []string{"machine.TestKillCommand"},
		},
		{
			Name: "kill-agent-at-start", Group: "Something dies", What: "the host agent is killed", How: "`kill -9` at the same stages of a start", produce: killAtStart("hostagent"), Slow: true,
			Promise: "the command says at which stage and why; the next `start` works",
		},
		{
			Name: "kill-vm-at-start", Group: "Something dies", What: "the VM's process is killed", How: "`kill -9` at the same stages of a start", produce: killAtStart("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "kill-cli-at-stop", Group: "Something dies", What: "the command is killed", How: "`kill -9` of `dev machine stop` at four moments", produce: killAtStop(""), Slow: true,
			Promise: "the stop goes on in the agent; the next `start` waits for it",
			Tests:   []string{"machine.TestKillCommand"},
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
			Name: "kill-virtiofsd", Group: "Something dies", What: "the server of a virtiofs share is killed", How: "`kill -9` of virtiofsd while containers use the folder", produce: virtiofsdDies, Slow: true,
			Promise: "what waits for it fails, nothing hangs; the folder comes back by itself, also in containers that run; those whose programs stand in it are named with the command that helps",
			Tests:   []string{"hostagent/vhostuser.TestTakesTheServersPlace"},
		},
		{
			Name: "kill-virtiofsd-asleep", Group: "Something dies", What: "the server of a virtiofs share is killed", How: "`kill -9` of virtiofsd at four moments each of `suspend`, `resume`, `stop` and `start`, with a container", produce: killVirtiofsd, Slow: true,
			Promise: "the machine is there afterwards with the folder, and so is the container",
		},
		{
			Group: "Something dies", What: "the server of a virtiofs share is left over, or dies with its agent", How: "`kill -9` of agent and VM while a stand-in of virtiofsd runs", Promise: "the next command ends it; nobody else's is touched",
			Tests: []string{"machine.TestHelpersEnd", "machine.TestOtherProcessesLive"},
		},
		{
			Name: "kill-guest-agent", Group: "Something dies", What: "the machine's own agent is killed", How: "`kill -9` inside the machine while a container runs", produce: guestAgentDies,
			Promise: "it is started again; `ssh`, ports and shared folders work again by themselves, the folders also within containers that have them; containers run on", Slow: true,
		},
		{
			Name: "engine-crash-loop", Group: "Something dies", What: "the engine crashes again and again", How: "`kill -9` of dockerd in the machine, three times, while a container runs", produce: engineCrashes,
			Promise: "it is started again each time and serves the same socket",
		},
		{
			Name: "suspended", Group: "Saved memory", What: "the machine is suspended with a container", How: "`dev machine suspend`, then `resume`", produce: suspended,
			Promise: "the container is the same, not one started anew; no VM runs meanwhile",
		},
		{
			Name: "kill-cli-at-suspend", Group: "Saved memory", What: "the command is killed", How: "`kill -9` of `dev machine suspend` at four moments", produce: killAtSuspend(""), Slow: true,
			Promise: "the agent goes on; the next `start` has the machine with its containers",
			Tests:   []string{"machine.TestKilledWhileSleeping"},
		},
		{
			Name: "kill-agent-at-suspend", Group: "Saved memory", What: "the host agent is killed", How: "`kill -9` at four moments of a suspend", produce: killAtSuspend("hostagent"), Slow: true,
			Promise: "either the state is whole and used, or the machine boots; what was synced is there",
			Tests:   []string{"machine/saved.TestKilledAnywhere", "machine/saved.TestKeeperKilled"},
		},
		{
			Name: "kill-vm-at-suspend", Group: "Saved memory", What: "the VM's process is killed", How: "`kill -9` at four moments of a suspend", produce: killAtSuspend("qemu-system"), Slow: true,
			Promise: "as above",
			Tests:   []string{"hostagent/daemon.TestSuspendEndsTheVM"},
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
			Name: "bad-state", Group: "Saved memory", What: "the saved memory is torn, damaged, empty, or of another disk", How: "the file is truncated or changed; the disk is replaced by a copy", produce: badState, Slow: true,
			Promise: "it is dropped with one line that says why, and the machine boots from its disk",
			Tests:   []string{"machine/saved.TestDamage", "machine/saved.TestKeeperRefuses", "hostagent/daemon.TestMemoryIsLost"},
		},
		{
			Name: "used-state", Group: "Saved memory", What: "an old state comes back", How: "a state is copied, used, the VM killed, and the copy put back", produce: usedState,
			Promise: "it is not used a second time: the disk has gone on",
			Tests:   []string{"machine/saved.TestKeeperOnce"},
		},
		{
			Name: "two-starts", Group: "Two at once", What: "two terminals start the machine", How: "two `dev machine start` at the same moment", produce: twoStarts,
			Promise: "both succeed; one agent and one VM run",
			Tests:   []string{"machine.TestRaces", "hostagent/daemon.TestOneAgentOnly"},
		},
		{
			Name: "power-cut", Group: "Disks", What: "the host loses power", How: "the disk is copied while a container writes and syncs; the machine starts from the copy", produce: powerCut,
			Promise: "the journals are replayed; what was synced before is there; the engine comes up",
			Tests:   []string{"vmimage.TestVMDamagedDataDisk"},
		},
		{
			Name: "guest-disk-full", Group: "Disks", What: "the machine's disk is full", How: "a container fills it to the last byte", produce: fullGuestDisk, Slow: true,
			Promise: "the writer is told; the engine goes on answering; the machine says what is full and what to do; after freeing all works",
			Tests:   []string{"vmimage.TestVMFullDataDisk", "hostagent/daemon.TestGuestProblem"},
		},
		{
			Name: "host-disk-full", Group: "Disks", What: "the host's disk is full", How: "the machine's folder is on a small file system that a container's writes fill", produce: hostDiskFull, Slow: true,
			Promise: "the VM stands still rather than see broken disks, and the machine says why; after freeing it goes on by itself, and the container has not noticed",
			Tests:   []string{"hostagent/daemon.TestHostDiskFull"},
		},
		{
			Name: "guest-out-of-memory", Group: "Memory and time", What: "the machine's memory is used up", How: "a container fills a tmpfs larger than the machine", produce: guestOutOfMemory,
			Promise: "the container dies, not the engine, nor the machine",
		},
		{
			Name: "guest-clock", Group: "Memory and time", What: "the guest's clock is wrong", How: "it is set 12 hours back, then 12 hours ahead", produce: guestClock,
			Promise: "the agent puts it right within seconds",
			Tests:   []string{"hostagent/daemon.TestSlept"},
		},
		{
			Name: "host-clock", Group: "Memory and time", What: "the host's clock is stepped", How: "12 hours back and ahead, while the machine runs and while it is suspended: the agent is built with a clock that the test sets", produce: hostClock, Slow: true,
			Promise: "the guest's clock follows within seconds; containers run on",
		},
		{
			Name: "newer-spec", Group: "Files", What: "the spec is of a newer dev, truncated, or empty", How: "`machine.yaml` is replaced", produce: newerSpec,
			Promise: "commands name the file and the reason and touch nothing; with the old file back all is as before",
			Tests:   []string{"machine.TestParseSpecRefuses", "machine.TestSpecVersions"},
		},
		{
			Name: "kill-cli-at-snapshot", Group: "Snapshots and upgrades", What: "the command is killed", How: "`kill -9` of `dev machine snapshot save` and `restore` at four moments each", produce: killAtSnapshot(""), Slow: true,
			Promise: "a snapshot is there as a whole or not at all; a restore has not begun, or the next command finishes it",
			Tests:   []string{"machine.TestKillSnapshot"},
		},
		{
			Name: "kill-vm-at-snapshot", Group: "Snapshots and upgrades", What: "the VM's process is killed", How: "`kill -9` of QEMU at four moments of each", produce: killAtSnapshot("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "kill-agent-at-snapshot", Group: "Snapshots and upgrades", What: "the host agent is killed", How: "`kill -9` at four moments of each", produce: killAtSnapshot("hostagent"), Slow: true,
			Promise: "as above",
		},
		{
			Name: "kill-cli-at-upgrade", Group: "Snapshots and upgrades", What: "the command is killed", How: "`kill -9` of `dev machine upgrade` at each step of its journal: prepare, try, back, proven", produce: killAtUpgrade(""), Slow: true,
			Promise: "the next `start` or `upgrade` finishes it or takes it back; the data is the same, and what ran runs",
			Tests:   []string{"machine.TestKillUpgrade", "machine.TestKillInUpgrade", "machine.TestUnfinishedUpgrade"},
		},
		{
			Name: "kill-agent-at-upgrade", Group: "Snapshots and upgrades", What: "the host agent is killed", How: "`kill -9` at the same steps", produce: killAtUpgrade("hostagent"), Slow: true,
			Promise: "the upgrade goes on, or back to the old image by itself, or the next `start` does it",
		},
		{
			Name: "kill-vm-at-upgrade", Group: "Snapshots and upgrades", What: "the VM's process is killed", How: "`kill -9` of QEMU at the same steps", produce: killAtUpgrade("qemu-system"), Slow: true,
			Promise: "as above",
		},
		{
			Group: "Snapshots and upgrades", What: "the new image does not work", How: "images that do not boot, whose engine does not answer, and whose guest is ill", Promise: "the machine goes back to the old image by itself, with its containers",
			Tests: []string{"machine.TestUpgradeGoesBack", "machine.TestUpgradeLayouts", "cmd.TestVMUpgradeEngine"},
		},
		{
			Name: "torn-snapshot", Group: "Snapshots and upgrades", What: "a snapshot is torn or altered", How: "manifest, sums and disk are truncated and changed", produce: tornSnapshots, Slow: true,
			Promise: "`verify` and `restore` name it, it never replaces anything, and the machine has run on",
			Tests:   []string{"machine/snapshots.TestDamage", "machine.TestRestoreRefuses"},
		},
		{
			Group: "Snapshots and upgrades", What: "shrinking a disk is killed", How: "`kill -9` at each step, with a stand-in for the guest", Promise: "the old disk, or the checked copy: never anything between",
			Tests: []string{"machine.TestShrinkKilled", "machine.TestShrinkFails"},
		},
		{
			Name: "ended-by-others", Group: "Others interfere", What: "the VM is stopped by somebody else", How: "`poweroff` inside; SIGTERM to QEMU", produce: endedByOthers, Slow: true,
			Promise: "the agent ends, the machine is stopped, and the next `start` works",
			Tests:   []string{"hostagent/daemon.TestTheMachineEndsByItself"},
		},
		{
			Name: "lost-terminal", Group: "Others interfere", What: "the command loses its terminal", How: "SIGHUP and SIGINT during a start; all three standard files closed", produce: lostTerminal, Slow: true,
			Promise: "the start goes on in the agent; the next command waits for it",
			Tests:   []string{"machine.TestStartCancelled"},
		},
		{
			Name: "no-qemu", Group: "Others interfere", What: "QEMU is gone", How: "its file is not there for the command (a mount namespace)", produce: noQEMU,
			Promise: "`start` and `doctor` name the program and how to install it; once it is back all is as before",
			Tests:   []string{"machine.TestStartNeedsQEMU", "machine/qemu.TestCheckNamesWhatIsMissing"},
		},
		{
			Group: "Others interfere", What: "the accelerator hangs, crashes or is shut", How: "this project's own build hosts, whose KVM does; stand-ins", Promise: "it is found out with a tiny guest before a machine relies on it; machines run in emulation, and one line says so",
			Tests: []string{"machine/qemu.TestAutoIsProven", "machine/qemu.TestProofEnds"},
		},
		{
			Group: "Others interfere", What: "a process of the same name, a reused process number", How: "processes with nearly the machine's command line", Promise: "nothing else is ever killed: processes are known by what they are",
			Tests: []string{"machine.TestOtherProcessesLive"},
		},
		{
			Group: "Others interfere", What: "the host agent hangs", How: "SIGSTOP; agents that answer nonsense, or nothing", Promise: "commands say so within seconds, and `start` replaces it",
			Tests: []string{"machine.TestBadAgents", "machine.TestHungVM", "machine.TestDoctor"},
		},
		{
			Name: "moved-dns", Group: "Network", What: "the host's DNS server changes", How: "the agent has a resolv.conf of its own, which then names another server of the test's; containers ask", produce: movedDNS, Slow: true,
			Promise: "the next query goes to the new one",
			Tests:   []string{"hostagent/network.TestResolvConfIsFollowed"},
		},
		{
			Group: "Network", What: "a published port is taken, before or after, on IPv4 or IPv6 only", How: "sockets of the test's", Promise: "the port and its holder are named, all else works, and it is served once it is free",
			Tests: []string{"hostagent/daemon.TestPortConflict", "hostagent/daemon.TestPublishedPortV6", "hostagent/daemon.TestSSHPort"},
		},
		{
			Name: "expired-certificates", Group: "Files", What: "certificates have expired", How: "the server's is replaced by one that ended yesterday", produce: expired, Slow: true,
			Promise: "new ones are made with the next start, and the TCP socket works",
			Tests:   []string{"machine.TestCertificates", "machine.TestCertificatesRotate"},
		},
		{
			Name: "host-full-at-rest", Group: "Disks", What: "the host has no room for memory or a snapshot", How: "the machine's folder is on a file system with 40 MiB left; `suspend`, `snapshot save`, `stop`", produce: hostFullAtRest, Slow: true,
			Promise: "suspend and snapshot say how much room they need, and the machine goes on; stop powers it off instead",
			Tests:   []string{"hostagent/daemon.TestSuspendFails", "hostagent/daemon.TestStopFallsBack", "machine.TestNoRoomForSnapshot", "machine/saved.TestWriteFails"},
		},
		{
			Group: "Disks", What: "the host is full when a machine is made", How: "a tmpfs of 16 KiB", Promise: "one error, nothing is left, and it works once there is room",
			Tests: []string{"machine.TestFullHome"},
		},
		{
			Group: "Files", What: "any file of a machine is lost, damaged, or has a wrong mode", How: "each of them is removed, overwritten, or changed", Promise: "`dev machine doctor` names it with cause and fix, and repairs what can be repaired without data",
			Tests: []string{"machine.TestDoctor", "machine.TestDoctorOfStore", "machine.TestBrokenMachines", "machine.TestRestoreBroken", "machine/serve.TestBrokenMachine"},
		},
		{
			Group: "Files", What: "a home that is read-only, missing, deep, with spaces and umlauts", How: "such folders and file systems", Promise: "what only looks works; what writes says why it cannot; odd names work",
			Tests: []string{"machine.TestReadOnlyHome", "machine.TestNoHome", "machine.TestPathTooLong", "machine.TestOddHome"},
		},
		{
			Group: "Files", What: "an image is cut off or altered on its way, or on disk", How: "a registry that breaks connections; changed files", Promise: "the download goes on where it was; what is not what it should be is never booted",
			Tests: []string{"vmimage.TestFetchResumesAndVerifies", "vmimage.TestPushAndPull", "vmimage.TestDamagedImageIsListedAndPruned"},
		},
		{
			Group: "Files", What: "100,000 changes of files at once", How: "checkouts, renames, deletions in a shared folder", Promise: "watchers are told of all; memory stays bounded; no echoes",
			Tests: []string{"hostagent/fileevents.TestWatcherStorm", "hostagent/fileevents.TestFoldStorm", "cmd.TestWatchStorm"},
		},
	}
}
