// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import "golang.org/x/sys/unix"

// hostProcessor describes the processor that a guest sees as it is.
func hostProcessor() string {
	name, err := unix.Sysctl("machdep.cpu.brand_string")
	if err != nil {
		return ""
	}
	return name
}
