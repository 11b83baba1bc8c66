// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"os/exec"
	"testing"

	"github.com/seed71221737/dev/engine/enginetest"
)

// TestTestcontainers runs a program made with testcontainers-go (see enginetest/testcontainers) on the engine. Its helper that removes what programs leave
// behind is switched off: its image can be pulled nowhere here.
func TestTestcontainers(t *testing.T) {
	program := os.Getenv("DEV_TEST_TESTCONTAINERS")
	if _, err := exec.LookPath(program); program == "" || err != nil {
		t.Skip("needs the program that make peers builds (DEV_TEST_TESTCONTAINERS)")
	}
	e := enginetest.Start(t)
	enginetest.BusyboxImage(t, e.Client(t), "busybox:test")
	c := exec.CommandContext(t.Context(), program, "-test.v")
	c.Env = append(os.Environ(), "DOCKER_HOST="+e.Host, "TESTCONTAINERS_RYUK_DISABLED=true", "HOME="+t.TempDir())
	c.Dir = t.TempDir()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("testcontainers-go: %v\n%s", err, out)
	}
}
