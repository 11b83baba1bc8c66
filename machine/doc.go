// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package machine keeps machines: virtual machines and remote hosts that run an engine for this user.
//
// A machine is a folder: its spec (what was asked), its disks and keys, and what its host agent leaves there while it runs. Status is what is
// observed now and is derived each time from locks and sockets that answer, never stored. Commands that change a machine hold its lock,
// re-read it after locking, and can be repeated, run twice at once, and killed at any moment.
//
// Drivers live in packages below (machine/qemu); they turn a spec and a link into a running VM. The machine's own process while it runs is a
// host agent (package hostagent), started detached from the command that asked for it.
//
// It must not import cmd, compose or engine.
package machine
