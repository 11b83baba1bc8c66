// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import "os"

// hostProcessor describes the processor that a guest sees as it is.
func hostProcessor() string { return os.Getenv("PROCESSOR_IDENTIFIER") }
