// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMaking: what is done to the folder of a file that is still open, and that the host may not have made yet, comes after its making.
func TestMaking(t *testing.T) {
	p := mounted(t, nil)
	for range 20 {
		if err := errors.Join(os.Mkdir(p.guest("d"), 0o755), os.WriteFile(p.guest("d/first"), nil, 0o644)); err != nil { // further files are made without waiting
			t.Fatal(err)
		}
		f, err := os.Create(p.guest("d/f"))
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(p.guest("d"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(p.host("d/f")); err != nil {
			t.Errorf("the host has no file after its folder was synchronized: %v", err)
		}
		g, err := os.Create(p.guest("d/g"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(p.guest("d/first")); err != nil {
			t.Fatal(err)
		}
		if err := unix.Rmdir(p.guest("d")); !errors.Is(err, unix.ENOTEMPTY) {
			t.Fatalf("a folder with two files was removed: %v", err)
		}
		if err := errors.Join(f.Close(), g.Close(), os.RemoveAll(p.guest("d"))); err != nil {
			t.Fatal(err)
		}
	}
}
