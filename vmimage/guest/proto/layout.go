// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

// Versions of the data disk's layout: the newest that this program's guests make, and the lowest whose images can still use a disk that they used. A
// migration that breaks earlier images raises both, one that only adds the first.
const (
	DataSchema = 1
	DataOldest = 1
)
