// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func testTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"bin/runc":                       "runc program",
		"bin/containerd":                 "containerd program",
		"licenses/example.com/x/LICENSE": "do as you like",
	} {
		if err := writeFile(filepath.Join(root, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func testManifest(t *testing.T, root string) Manifest {
	t.Helper()
	files, err := scan(root)
	if err != nil {
		t.Fatal(err)
	}
	return newManifest(testPins(), "amd64", files)
}

func TestManifest(t *testing.T) {
	data, err := testManifest(t, testTree(t)).encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "manifest.golden.json", string(data))
}

func TestVersionNamesTheContents(t *testing.T) {
	root := testTree(t)
	before := testManifest(t, root).Version
	if again := testManifest(t, root).Version; again != before {
		t.Errorf("the same files: %s, then %s", before, again)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "runc"), []byte("runc prograM"), 0o644); err != nil {
		t.Fatal(err)
	}
	if after := testManifest(t, root).Version; after == before {
		t.Error("another runc, the same version")
	}
}

func packed(t *testing.T, root string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := pack(&b, testManifest(t, root), root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Two trees that differ in all but the contents give the same bytes.
func TestPackIsReproducible(t *testing.T) {
	one, two := testTree(t), testTree(t)
	file := filepath.Join(two, "bin", "runc")
	if err := os.Chmod(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(packed(t, one), packed(t, two)) {
		t.Error("the archives differ")
	}
}

func TestArchive(t *testing.T) {
	root := testTree(t)
	zr, err := zstd.NewReader(bytes.NewReader(packed(t, root)), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	want := []struct {
		name string
		mode int64
	}{{"manifest.json", 0o644}, {"bin/containerd", 0o755}, {"bin/runc", 0o755}, {"licenses/example.com/x/LICENSE", 0o644}}
	tr := tar.NewReader(zr)
	for _, w := range want {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != w.name || h.Mode != w.mode || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("entry %+v, want %+v of nobody's, at time 0", h, w)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if w.name == "bin/runc" && string(data) != "runc program" {
			t.Errorf("runc is %q", data)
		}
	}
	if _, err := tr.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("more entries than files: %v", err)
	}
}

// A file that changed after it was described must not be packed as if it were whole.
func TestPackRefusesChangedFile(t *testing.T) {
	for name, text := range map[string]string{"longer": "runc program, and more", "shorter": "runc"} {
		t.Run(name, func(t *testing.T) {
			root := testTree(t)
			m := testManifest(t, root)
			if err := os.WriteFile(filepath.Join(root, "bin", "runc"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := pack(io.Discard, m, root); err == nil {
				t.Error("packed")
			}
		})
	}
}
