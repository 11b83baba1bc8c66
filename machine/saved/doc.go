// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package saved keeps the memory of virtual machines that are not running, in two layers.
//
// A state file holds what a VM had in memory (the guest's pages that are not zero, in chunks with checksums) and what its devices were like (the VMM's own
// stream). It is of use only as a whole: an index at its end says what there has to be, so that a torn file is known at once and a damaged chunk when it is read.
//
// A Keeper has one machine's state and the facts it depends on: image, settings, VMM, processor, and the exact content of the disk. It gives the state out only
// where all of them are the same, and once: before a guest runs on, its state is gone from the place where states are found, durably.
//
// The package knows nothing of machines, hypervisors and the network.
package saved
