// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package fileevents tells what others change in a shared folder of the host, by its true kind: created, modified, closed, attributes, deleted, moved.
//
// A [Watcher] watches the folders that the guest has been told of ([Watcher.Add]) and no others: what the guest has never seen it can neither cache nor
// watch. So there is no scan at the start, a share of a whole home folder costs what is used of it, and an idle one costs nothing. Where the system watches
// trees as a whole (macOS, Windows), the same set is a filter.
//
// Events come in batches ([Watcher.Next]), the first one at once. Within a batch, changes of the same kind to the same file are one. What the guest itself
// changed through the share comes back as events of the host, too: the [Ledger] knows them by what was done and by the state it left, so that a change
// that somebody else makes to the same file at the same time is still told. Lost events (an overflowing queue, more changes than are kept, a time in which
// nobody watched) are made up for by looking at the folders again.
//
// Package engine/watch serves another need and is made otherwise: it compares the states of whole trees, and takes events for hints only.
package fileevents
