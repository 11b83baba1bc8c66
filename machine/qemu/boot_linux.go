// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"os"
	"strings"
)

// bootID tells one boot of the host from another; empty where it is not known, and then nothing is remembered.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
