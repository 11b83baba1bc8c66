// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"fmt"
	"io"
	"os/exec"
	"testing"
)

// A program of ours that was killed has no exit code of its own: dev's must not become 255.
func TestExitCodeOfKilledProgram(t *testing.T) {
	err := exec.Command("sh", "-c", "kill -9 $$").Run()
	if err == nil {
		t.Fatal("the program was not killed")
	}
	a := &app{err: io.Discard}
	if code := a.exitCode(t.Context(), fmt.Errorf("start the machine: %w", err)); code != exitError {
		t.Errorf("exit code %d, want %d", code, exitError)
	}
}
