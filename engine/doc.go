// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package engine puts the Docker API behind what the rest of dev needs of an engine: it carries out the operations of a
// [compose.Plan], observes a project in a handful of calls, waits for containers on the engine's events, and streams logs, exec
// and attach.
//
//	c, err := engine.Open(engine.Options{Host: "unix:///var/run/docker.sock"})
//	defer c.Close()
//
// Open connects to nothing: the first call does. Every error that leaves the package says what the user can do about it where the
// package knows: an engine that does not answer is a [*ConnectError], a taken port a [*PortError], a container's own exit code an
// [*ExitError].
//
// Invariants: the package never prints and never prompts. It does not import cmd or machine, and no BuildKit: builds are done by a
// [Builder] that is handed in (package engine/build), because BuildKit's dependencies cost every process that links them.
package engine
