// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "golang.org/x/sys/unix"

// hostMemoryMiB is the host's memory; 0 where it is not known.
func hostMemoryMiB() int {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int(n >> 20)
}
