// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import "io/fs"

// allocated is what a file takes up, in bytes; Windows does not tell it of a sparse one without opening it.
func allocated(info fs.FileInfo) int64 { return info.Size() }
