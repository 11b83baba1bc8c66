// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBuildFromArchive resolves and builds both images twice from Debian's archive. It downloads about 100 MB, so it asks to be asked: DEV_TEST_IMAGE=1.
// The mirror is the host's own; DEV_TEST_IMAGE_CACHE keeps the downloads.
func TestBuildFromArchive(t *testing.T) {
	if os.Getenv("DEV_TEST_IMAGE") == "" {
		t.Skip("builds images from Debian's archive: set DEV_TEST_IMAGE=1")
	}
	ctx := context.Background()
	spec, err := ParseSpec("image.yaml", DefaultSpec)
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("DEV_TEST_IMAGE_CACHE")
	if cache == "" {
		cache = t.TempDir()
	}
	downloads := &Downloads{Dir: cache}
	mirrors := Mirrors{Host: os.DirFS("/")}
	lock, err := Refresh(ctx, spec, RefreshOptions{Keyring: DefaultKeyring, Mirrors: mirrors, Downloads: downloads, Arches: Arches, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if out := os.Getenv("DEV_TEST_IMAGE_LOCK"); out != "" {
		data, err := lock.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	guest := filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(guest, []byte("a stand-in for the guest program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, arch := range Arches {
		t.Run(arch, func(t *testing.T) {
			o := BuildOptions{
				Spec: spec, Lock: lock, Arch: arch, Engine: filepath.Join("..", "dist", "engine-linux-"+arch+".tar.zst"), Guest: guest,
				Mirrors: mirrors, Downloads: downloads, Step: func(text string) { t.Log(time.Now().Format("15:04:05.000"), text) },
			}
			if _, err := os.Stat(o.Engine); err != nil {
				t.Skipf("no engine bundle (make bundle): %v", err)
			}
			var manifests [][]byte
			for range 2 {
				o.Dir = filepath.Join(t.TempDir(), "image")
				m, err := Build(ctx, o)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range append(m.Files, *m.Disk) {
					t.Logf("%-14s %10d %s", f.Name, f.Size, f.SHA256[:12])
				}
				if _, err := Verify(o.Dir); err != nil {
					t.Error(err)
				}
				data, err := os.ReadFile(filepath.Join(o.Dir, ManifestName))
				if err != nil {
					t.Fatal(err)
				}
				manifests = append(manifests, data)
			}
			if !bytes.Equal(manifests[0], manifests[1]) {
				t.Error("two builds of the same inputs differ")
			}
		})
	}
}
