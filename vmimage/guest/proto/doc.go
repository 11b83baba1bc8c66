// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package proto is what host and guest say to each other: the seed, which the host hands a machine before it boots, and the control protocol, which
// runs over the machine's SSH link as the subsystem "dev-control".
//
// Both ends carry a version range and agree on the highest they share, or say which side to upgrade. The package holds types, their encoding and the
// client; it does no system calls and compiles everywhere.
package proto
