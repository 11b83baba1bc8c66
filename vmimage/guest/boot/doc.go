// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package boot is PID 1 of a machine: in the initial RAM disk it loads what finds the root file system and moves into it; there it makes the machine
// ready (mounts, modules, network, data disk, settings from the seed), starts containerd, dockerd and the agent, restarts what crashes, reaps
// orphans, and powers off in order.
//
// Vocabulary: the seed is what the host hands the machine before it boots (package proto); the data disk holds everything that outlives a
// boot and is mounted at /var; a stage is a step of the boot that leaves a line with its time on the console and in the status file.
//
// What decides is pure and tested everywhere (module index, data disk choice); what acts is in _linux files. A fault never stops the boot where the
// machine can still be reached: it becomes a problem in the status. The data disk is never formatted when it holds anything.
package boot
