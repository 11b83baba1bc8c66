// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import "runtime"

// Sizes of a machine where none are asked for: half the processors, a quarter of the memory, and a disk that takes up what is in it.
const (
	defaultDiskMiB   = 64 << 10
	leastMemoryMiB   = 2 << 10
	mostMemoryMiB    = 8 << 10
	mostDefaultCPUs  = 8
	leastDefaultCPUs = 2
)

// DefaultSpec is a spec for this host, without an image.
func DefaultSpec() Spec {
	memory := hostMemoryMiB() / 4
	return Spec{
		Version: SpecVersion, Driver: "qemu", Arch: runtime.GOARCH, Accelerator: "auto",
		CPUs:      min(max(runtime.NumCPU()/2, leastDefaultCPUs), mostDefaultCPUs, max(runtime.NumCPU(), 1)),
		MemoryMiB: min(max(memory, leastMemoryMiB), mostMemoryMiB),
		DiskMiB:   defaultDiskMiB,
	}
}
