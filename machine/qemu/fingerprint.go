// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/saved"
)

var _ machine.Saver = (*Driver)(nil)

// Fingerprint names QEMU, the accelerator, the board with all devices, and the processor where it is the host's.
func (d *Driver) Fingerprint(ctx context.Context, spec machine.Spec) ([]saved.Fact, error) {
	program, err := d.program(spec.Arch)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(program)
	if err != nil {
		return nil, fmt.Errorf("look at QEMU: %w", err)
	}
	accelerator, err := d.accelerator(ctx, program, spec)
	if err != nil {
		return nil, err
	}
	facts := []saved.Fact{
		{Name: "QEMU", Value: fmt.Sprintf("%s %d %s", program, info.Size(), info.ModTime().UTC().Format("2006-01-02T15:04:05.999999999"))},
		{Name: "accelerator", Value: accelerator},
		{Name: "set of devices", Value: devices(host{OS: runtime.GOOS, Accelerator: accelerator}, spec)},
	}
	if accelerator != "tcg" {
		facts = append(facts, saved.Fact{Name: "processor", Value: digest(hostProcessor())})
	}
	return facts, nil
}

// devices is the command line without what may differ: the machine's folder, its image's and its card's address.
func devices(h host, spec machine.Spec) string {
	link := hostagent.Link{Network: "network", Seed: "seed", Console: "console", MAC: "mac"}
	return digest(strings.Join(commandLine(h, image{Dir: "image"}, "machine", spec, link), "\x00"))
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
