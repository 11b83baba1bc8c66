// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// unpack reads the built bundle of arch into a folder; the test is skipped where
// there is none.
func unpack(t *testing.T, arch string) (m Manifest, root string) {
	t.Helper()
	f, err := os.Open(outputsIn(filepath.Join("..", "..", "dist"), arch).Archive)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no bundle in dist/; `make engine ARCH=" + arch + "` makes it")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	root = t.TempDir()
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(filepath.Join(root, h.Name), data); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, h.Name), h.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m, root
}

// What was built holds what its manifest says, as programs that need nothing of
// the host but its kernel.
func TestBuiltBundle(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			m, root := unpack(t, arch)
			if m.Arch != arch || m.Schema != 1 || m.Archive != nil {
				t.Errorf("manifest of %s, schema %d, archive %v", m.Arch, m.Schema, m.Archive)
			}
			for _, f := range m.Files {
				data, err := os.ReadFile(filepath.Join(root, f.Path))
				if err != nil {
					t.Fatal(err)
				}
				if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 || int64(len(data)) != f.Size {
					t.Errorf("%s: not what the manifest says", f.Path)
				}
			}
			for _, c := range m.Components {
				checkProgram(t, filepath.Join(root, "bin", c.Name), machine)
			}
		})
	}
}

func checkProgram(t *testing.T, path string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machine {
		t.Errorf("%s: built for %s", path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s: needs a dynamic loader", path)
		}
	}
}

func TestBuiltProgramsTellTheirVersions(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the programs run on linux")
	}
	m, root := unpack(t, runtime.GOARCH)
	for _, c := range m.Components {
		flag := "--version"
		if strings.HasPrefix(c.Name, "containerd-shim") {
			flag = "-v"
		}
		out, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", c.Name), flag).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.Name, err, out)
		}
		if got := string(out); !strings.Contains(got, c.Version) || strings.Contains(got, "library-import") {
			t.Errorf("%s %s says: %s", c.Name, c.Version, got)
		}
		release, _, _ := strings.Cut(m.Version, "-")
		if c.Module == mobyModule && !strings.Contains(string(out), release) {
			t.Errorf("%s: no %s in: %s", c.Name, release, out)
		}
	}
}
