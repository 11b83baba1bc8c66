// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package share mounts folders of the host's in the machine. The kernel asks by FUSE, the host answers over the fast link (package wire, package hostagent/share).
//
// Emulated processors make each step dear, so as few as possible are taken. The kernel opens files and folders without asking. What the host has told of a file
// or folder that it watches is believed until it says otherwise, also that a name is not there. A folder comes with all attributes, and with the folders below it.
// Who reads one small file after another finds the next ones fetched. Writes are sent without waiting; close, fsync and whatever else depends on them waits, and
// brings the error.
//
// The mount outlives its connection: requests wait for the next one, which are sent again and are not carried out twice. When none comes, they fail after a while:
// nothing hangs for ever.
package share
