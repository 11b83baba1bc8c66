// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import "os"

// The system's codes for programs that it ends for what they did begin so; one of them is that of a control key, which is somebody's wish.
const (
	faults     = 0xC0000000
	controlKey = 0xC000013A
)

// crashed says whether a process was ended for a fault of its own.
func crashed(p *os.ProcessState) bool {
	code := uint32(p.ExitCode())
	return code&0xF0000000 == faults && code != controlKey
}
