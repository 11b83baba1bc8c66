// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package snapshots keeps snapshots of one machine: copies of its data disk at one moment, each with the spec that the machine had.
//
// A snapshot is a folder below [Store.Dir], named as the snapshot: snapshot.json says what it is, data.img is the disk, raw and sparse, and
// data.sums holds a SHA-256 for each chunk of it. The manifest carries its own digest and that of the sums, so that whatever is torn or altered
// is found. A [Draft] is made aside, in .tmp-<name>-<rand>, and moved into place when it is whole: a snapshot is there as a whole or not at all.
//
// The caller holds the machine's lock: nothing here orders processes. It must not import machine.
package snapshots
