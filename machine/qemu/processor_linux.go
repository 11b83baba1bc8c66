// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"os"
	"slices"
	"strings"
)

// processorFields are those lines of /proc/cpuinfo that tell processors from others, and do not change while they run.
var processorFields = []string{"vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "CPU implementer", "CPU part", "CPU variant", "CPU revision", "Features"}

// hostProcessor describes the processor that a guest sees as it is.
func hostProcessor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n\n")
	var b strings.Builder
	for line := range strings.Lines(first) {
		if name, _, ok := strings.Cut(line, ":"); ok && slices.Contains(processorFields, strings.TrimSpace(name)) {
			b.WriteString(line)
		}
	}
	return b.String()
}
