// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package hostagent is the daemon that makes one machine's engine behave as if it ran on the host, and the client that talks to the daemon.
//
// A host agent serves exactly one machine. It holds the machine's run lock for its whole life, starts the VM through a function it is given, and
// carries network, published ports, the engine's socket, shared folders, DNS and clock between host and guest until the VM is off. What it
// does is visible through its control socket as a Status and a stream of Events.
//
// It knows nothing of stores, specs or drivers: package machine composes it. It must not import machine, engine or cmd.
package hostagent
