// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package qemu is the driver that runs machines with QEMU: on Linux, macOS and Windows, for amd64 (q35) and arm64 (virt) guests.
//
// A VM is data first: commandLine turns host facts, image, folder, spec and link into QEMU's arguments without looking at anything. Which accelerator
// is used is proven by running a tiny guest with it, not by a device file that can be opened: the answer holds until the host boots again.
//
// A QEMU process outlives the host agent that started it if that agent is killed. Dying with it would be a power cut for every container, at the
// hand of whoever killed a process that holds no data. The next command on the machine finds the VM by its command line, powers it off in
// order and goes on. QEMU therefore has a process group of its own and no parent-death signal.
package qemu
