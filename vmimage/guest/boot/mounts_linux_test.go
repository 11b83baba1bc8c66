// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The engine waits for folders that are mounted while it waits, whatever their names are, and not for ever for the others.
func TestAwaitMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: needs root")
	}
	target := filepath.Join(t.TempDir(), "a folder\twith \\040")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	never := filepath.Join(t.TempDir(), "never")
	if missing := awaitMounts(t.Context(), []string{target, never}, 0); len(missing) != 2 {
		t.Fatalf("missing before: %q", missing)
	}
	mounted := make(chan error, 1)
	go func() { mounted <- unix.Mount("tmpfs", target, "tmpfs", 0, "") }()
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
	if missing := awaitMounts(t.Context(), []string{target}, time.Minute); len(missing) != 0 {
		t.Errorf("missing after: %q", missing)
	}
	if err := <-mounted; err != nil {
		t.Fatal(err)
	}
	if missing := awaitMounts(t.Context(), []string{target, never}, 50*time.Millisecond); len(missing) != 1 || missing[0] != never {
		t.Errorf("missing: %q", missing)
	}
}
