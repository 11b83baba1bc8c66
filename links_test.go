// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package dev_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDevLinksNothingHeavy keeps out of dev what its other programs are there for: each start of each command would pay for it (docs/adr/0005-programs.md).
func TestDevLinksNothingHeavy(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/dev").Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := []string{
		module + "/engine/build/buildkit", module + "/hostagent/daemon", "github.com/moby/buildkit/client/...", "google.golang.org/grpc/...", "gvisor.dev/...",
		"github.com/google/gopacket/...",
	}
	for _, p := range strings.Fields(string(out)) {
		if matchesAny(heavy, p) {
			t.Errorf("cmd/dev links %s", p)
		}
	}
}
