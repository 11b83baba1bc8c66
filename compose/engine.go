// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
)

// Engine is what the core needs of a Docker Engine. Implementations are safe for concurrent use.
type Engine interface {
	// Observe takes one snapshot of what q asks for.
	Observe(ctx context.Context, q Query) (Snapshot, error)
	// Do carries out one operation other than OpAwait. made holds the results of the operations that it needs, and nobody else uses it;
	// progress within the operation is told to sink.
	Do(ctx context.Context, op Op, made Results, sink Sink) (Result, error)
	// Await returns nil as soon as the container satisfies the condition, and an error that explains itself when it no longer can: an
	// *AwaitError with exit code, last probe output and log tail. It reacts to the engine's events.
	Await(ctx context.Context, containerID string, c Condition) error
}

// Query says what a snapshot covers. Empty lists cost no engine call.
type Query struct {
	// Project is the project's name; its labelled containers, networks and volumes are observed.
	Project string
	// Networks, Volumes and Images are further names to look up (external networks and volumes, the services' images).
	Networks, Volumes, Images []string
	// Tagged are those of Images whose [Image.Tagged] is needed; each costs a call of its own.
	Tagged []string
	// IDOnly are those of Images of which only the [Image.ID] is needed, so that the containers made from them may tell it.
	IDOnly []string
	// SkipNetworks and SkipVolumes leave out the labelled ones, where a command does not need them.
	SkipNetworks, SkipVolumes bool
}

// Result is what an operation made: the ID of a container, network or image, or a volume's name.
type Result struct {
	ID string
	// Warnings are what the engine said beside the result.
	Warnings []string
}

// Results holds the results of finished operations by operation ID.
type Results map[int]Result

// Resolve returns the ID that r names.
func (m Results) Resolve(r Ref) string {
	if r.Op == 0 {
		return r.ID
	}
	return m[r.Op].ID
}
