// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package compose is the pure core of dev: it turns Compose files and one snapshot of an engine into a plan, and runs
// that plan.
//
//	Load → Observe → NewPlan → Apply
//
// Load reads Compose files into a project, which nothing changes afterwards. An [Engine] observes what exists of that project: one
// [Snapshot], taken without further calls later on. NewPlan and its siblings for down, stop, … compare the two and return
// a [Plan]: data, deterministic, every operation one engine call with the reason for it. Apply runs the plan's operations with
// bounded concurrency; one starts only when all it needs succeeded. What happens is told to a [Sink].
//
// Vocabulary: a project has services; a service runs as containers, its replicas; a one-off is a container made by `run`; an
// orphan is a container of a service that the project no longer has. To recreate is to replace a container by a new one
// that keeps its anonymous volumes.
//
// Invariants: nothing here talks to an engine, a terminal, a clock or the environment except through its arguments (Load reads the files it
// is pointed to). The package imports compose-go and the engine's API types; never an engine client, os/exec, cobra or machine.
package compose
