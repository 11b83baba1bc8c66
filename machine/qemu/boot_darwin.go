// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import "golang.org/x/sys/unix"

// bootID tells one boot of the host from another; empty where it is not known, and then nothing is remembered.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}
