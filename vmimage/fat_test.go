// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// TestWriteFAT lets another implementation read what ours writes.
func TestWriteFAT(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "fat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 70 * mebi
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("unified kernel image "), 100_001)
	if err := writeFAT(f, 0, size, "DEV-BOOT", 7, "EFI/BOOT/BOOTX64.EFI", data); err != nil {
		t.Fatal(err)
	}
	fs, err := fat32.Read(file.New(f, true), size, 0, sector)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile("/EFI/BOOT/BOOTX64.EFI")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes, not the %d written", len(got), len(data))
	}
	if err := writeFAT(f, 0, mebi, "DEV-BOOT", 7, "A/B", make([]byte, 2*mebi)); err == nil {
		t.Error("a file larger than the file system was accepted")
	}
}
