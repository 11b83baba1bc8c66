// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package daemon is the host agent itself: what runs, one process for each machine, behind the control socket that package hostagent's client asks.
//
// Run does everything in one order and undoes it in the opposite one: run lock, control socket, network, shares, VM, link, engine, mounts,
// forwards. A stage has a deadline; what the machine can live without becomes a Problem and the phase Degraded instead of failing the start. Each
// goroutine and process belongs to Run, which returns when all of them have ended.
//
// It is apart from package hostagent because of what it links (a TCP/IP stack): commands that only ask a host agent need none of it.
package daemon
