// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package reclaim gives back to the host what a running machine does not need: memory, by a balloon in the guest (Keeper), and disk, by trimming
// (Trimmer).
//
// What to do is decided by pure functions (policy.go) from what the guest tells; nobody polls: the guest says at once when memory is missed, and is looked at
// once a minute otherwise. The package knows no link, no engine and no driver: they are handed in.
package reclaim
