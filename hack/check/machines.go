// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
)

// machineDemo shows the example in a virtual machine, and then uses one as its users do: with our own commands and the docker CLI.
func machineDemo(ctx context.Context, r *report) error {
	if runtime.GOOS != "linux" {
		return skipped("the machine's image is built on Linux")
	}
	if err := command(ctx, "", "hack/deps.sh", "machines"); err != nil {
		return skipped(fmt.Sprintf("QEMU cannot be had: %v", err))
	}
	if err := command(ctx, "", "make", "demo-vm"); err != nil {
		return err
	}
	// The image that the demo has left in dist is booted again.
	return goTest(ctx, r, "", []string{"-exec=env DEV_TEST_VM=1", "-count=1", "-p=1", "-run=^TestVM", "-timeout=60m"}, "./cmd", "./machine/faults")
}

// machines boots virtual machines with an image of what is in the tree. The packages come from the mirror of the host's own package manager; a host
// that has none, or no QEMU, skips them.
func machines(ctx context.Context, r *report) error {
	if runtime.GOOS != "linux" {
		return skipped("their images are built and booted on Linux")
	}
	if err := command(ctx, "", "hack/deps.sh", "machines"); err != nil {
		return skipped(fmt.Sprintf("QEMU cannot be had: %v", err))
	}
	// -exec sets the environment of the tests, for their second run, too.
	return goTest(ctx, r, "", []string{"-exec=env DEV_TEST_VM=1", "-count=1", "-run=^TestVM", "-timeout=60m"}, "./vmimage")
}
