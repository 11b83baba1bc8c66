// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "golang.org/x/sys/unix"

// hostMemoryMiB is the host's memory; 0 where it is not known.
func hostMemoryMiB() int {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int(info.Totalram * uint64(info.Unit) >> 20)
}
