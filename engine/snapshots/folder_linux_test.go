// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mounted mounts an empty file system of a kind for the test.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("needs mkfs.%s", kind)
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(512<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v: %s", kind, err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("%s cannot be mounted here: %v: %s", kind, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// makeVolume makes a folder with one of everything. It reports whether attributes can be set.
func makeVolume(t *testing.T, dir string) {
	t.Helper()
	past := time.Date(2020, 1, 2, 3, 4, 5, 6789, time.UTC)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(at("deep/er"), 0o750))
	must(os.WriteFile(at("deep/file"), bytes.Repeat([]byte("content "), 10000), 0o640))
	must(os.WriteFile(at("empty"), nil, 0o600))
	must(os.Link(at("deep/file"), at("deep/er/link")))
	must(os.Symlink("/etc/passwd", at("away")))
	must(os.Symlink("../..", at("deep/up")))
	must(unix.Setxattr(at("deep/file"), "user.note", []byte("a\x00b"), 0))
	must(unix.Setxattr(at("deep"), "user.dir", []byte("d"), 0))
	l, err := net.Listen("unix", at("socket"))
	must(err)
	t.Cleanup(func() { _ = l.Close() })
	must(unix.Mkfifo(at("fifo"), 0o622))
	if os.Geteuid() == 0 {
		must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(os.WriteFile(at("owned"), []byte("x"), 0o600))
		must(os.Chown(at("owned"), 7, 8))
		must(unix.Chmod(at("owned"), 0o4711))
	}
	for _, name := range []string{"deep/file", "deep/er", "deep", "empty", "."} {
		must(os.Chtimes(at(name), past, past))
	}
}

func archived(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Archive(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	makeVolume(t, dir)
	content := archived(t, dir)
	if !bytes.Equal(content, archived(t, dir)) {
		t.Error("the archive is another one each time")
	}
	found := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h
	}
	for _, c := range []struct {
		name string
		good func(*tar.Header) bool
	}{
		{"volume/", func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir && h.ModTime.Year() == 2020 }},
		{"volume/deep/er/link", func(h *tar.Header) bool { return h.Typeflag == tar.TypeReg && h.Size == 80000 }},
		{"volume/deep/file", func(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == "volume/deep/er/link" }},
		{"volume/deep/", func(h *tar.Header) bool { return h.PAXRecords[xattrRecord+"user.dir"] == "d" && h.Mode == 0o750 }},
		{"volume/away", func(h *tar.Header) bool { return h.Typeflag == tar.TypeSymlink && h.Linkname == "/etc/passwd" }},
		{"volume/fifo", func(h *tar.Header) bool { return h.Typeflag == tar.TypeFifo }},
	} {
		if h := found[c.name]; h == nil || !c.good(h) {
			t.Errorf("%s: %+v", c.name, h)
		}
	}
	if h := found["volume/deep/er/link"]; h != nil && h.PAXRecords[xattrRecord+"user.note"] != "a\x00b" {
		t.Errorf("attributes %q", h.PAXRecords)
	}
	if found["volume/socket"] != nil {
		t.Error("a socket is in the archive")
	}
}

// TestClone keeps a volume as a clone where the file system can: changes of the volume do not reach it, it gives the same archive, goes back into a volume, and
// damage is found.
func TestClone(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) { testClone(t, mounted(t, kind)) })
	}
}

func testClone(t *testing.T, base string) {
	s := Store{Dir: filepath.Join(base, "store")}
	volume := filepath.Join(base, "volumes", "v", "_data")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	makeVolume(t, volume)
	before := archived(t, volume)
	snap := Snapshot{Project: "p", Name: "one"}
	err := s.Saving(t.Context(), func() error {
		clone, err := s.Clone(t.Context(), volume)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(volume, "deep/file"), []byte("changed"), 0o600); err != nil { // containers go on
			return err
		}
		b, err := clone.Keep(t.Context())
		if err != nil {
			return err
		}
		snap.Volumes = []Volume{{Key: "v", Name: "v", Blob: b.Digest, Size: b.Size}}
		return s.Put(snap)
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := snap.Volumes[0].Blob
	if r, err := s.Open(digest); err != nil {
		t.Fatal(err)
	} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, before) || r.Close() != nil {
		t.Errorf("the clone's archive is not the volume's: %v", err)
	}
	if r, err := s.Open(digest); err != nil {
		t.Fatal(err)
	} else if err := r.Close(); err != nil { // half-read
		t.Error(err)
	}
	if err := s.Check(t.Context(), snap); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"back", "other"} {
		back := filepath.Join(base, "volumes", name, "_data")
		if err := os.MkdirAll(back, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := s.Fill(t.Context(), digest, back); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(archived(t, back), before) {
			t.Error("what came back is not what was saved")
		}
	}
	if err := os.WriteFile(filepath.Join(s.tree(digest), archiveFolder, "deep/file"), []byte("damage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), snap); !errors.As(err, new(*CorruptError)) {
		t.Errorf("damage is not found: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(s.trees(), tmpPrefix+"left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "p", "one"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.trees()); err != nil || len(left) > 0 {
		t.Errorf("left after removal: %v, %v", left, err)
	}
}

// TestNoClone: between file systems, or on one that cannot, nothing is left behind.
func TestNoClone(t *testing.T) {
	volume, base := t.TempDir(), mounted(t, "ext4")
	makeVolume(t, volume)
	s := Store{Dir: base}
	if _, err := s.Clone(t.Context(), volume); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("Clone = %v", err)
	}
	if left, err := os.ReadDir(s.trees()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	dst := filepath.Join(base, "v", "_data")
	if err := os.MkdirAll(dst, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CloneFolder(t.Context(), dst, volume); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("CloneFolder = %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(dst)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}
