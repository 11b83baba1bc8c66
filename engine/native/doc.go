// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package native runs the engine that dev carries as a background service on
// Linux: dockerd and containerd from the bundle, under a supervisor, with data,
// socket and logs of their own.
//
// Vocabulary: the bundle is the archive with the engine's programs; it is
// unpacked once into a folder named after its ID. The supervisor is one
// long-lived process (`dev engine serve`) that runs containerd and dockerd as
// children, restarts them when they die, and answers on a control socket.
// Service is what a command uses: it starts the supervisor, detached or as a
// systemd unit, asks it, and stops it.
//
// Invariants: whether the engine runs is derived from a lock that dies with
// the supervisor and from sockets that answer, never from a file's presence.
// Containers outlive dockerd, containerd and supervisor (live-restore) unless
// a stop asks otherwise. No process is signalled before its identity (start
// time and executable) is checked.
//
// What to write into the engine's configuration is decided by pure functions
// (daemon configuration, address pools, firewall, unit) that every OS compiles
// and tests; only acting on it needs Linux.
package native
