// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// save stores one volume with the content as a snapshot.
func save(t *testing.T, s Store, project, name, content string) Snapshot {
	t.Helper()
	snap := Snapshot{Project: project, Name: name, Created: when}
	err := s.Saving(t.Context(), func() error {
		b, err := s.Add(t.Context(), strings.NewReader(content), 0)
		if err != nil {
			return err
		}
		snap.Volumes = []Volume{{Key: "data", Name: project + "_data", Blob: b.Digest, Size: b.Size, Compressed: b.Compressed}}
		return s.Put(snap)
	})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func blobs(t *testing.T, s Store) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func read(t *testing.T, s Store, digest string) (string, error) {
	t.Helper()
	r, err := s.Open(digest)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestStore(t *testing.T) {
	s := Store{t.TempDir()}
	if list, err := s.List("shop"); err != nil || len(list) != 0 {
		t.Fatalf("an empty store: %v, %v", list, err)
	}
	one := save(t, s, "shop", "one", "content")
	save(t, s, "shop", "two", "content")
	save(t, s, "other", "one", "more")
	if n := blobs(t, s); n != 2 {
		t.Errorf("%d blobs for two contents", n)
	}
	got, err := s.Get("shop", "one")
	if err != nil || got.Volumes[0].Blob != one.Volumes[0].Blob || got.Size() != 7 || got.Automatic() || s.Check(t.Context(), got) != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if text, err := read(t, s, one.Volumes[0].Blob); err != nil || text != "content" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := s.Put(one); err == nil {
		t.Error("a snapshot was overwritten")
	}
	if _, err := s.Remove(t.Context(), "shop", "one"); err != nil || blobs(t, s) != 2 {
		t.Errorf("removed what another needs: %v, %d blobs", err, blobs(t, s))
	}
	if freed, err := s.Remove(t.Context(), "shop", "two"); err != nil || blobs(t, s) != 1 || freed == 0 {
		t.Errorf("freed %d, %v, %d blobs", freed, err, blobs(t, s))
	}
	if projects, err := s.Projects(); err != nil || fmt.Sprint(projects) != "[other]" {
		t.Errorf("got projects %v, %v", projects, err)
	}
	for _, name := range []string{"one", "none", "../other/one", ""} {
		_, err := s.Get("shop", name)
		if _, removeErr := s.Remove(t.Context(), "shop", name); !errors.Is(err, fs.ErrNotExist) || !errors.Is(removeErr, fs.ErrNotExist) {
			t.Errorf("%q: got %v and %v", name, err, removeErr)
		}
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"a": true, "2026-01-02.x": true, ".a": false, "a/b": false, "": false, strings.Repeat("a", 101): false} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// TestDamage: content that changed on disk is never given out as if it were whole.
func TestDamage(t *testing.T) {
	s := Store{t.TempDir()}
	content := strings.Repeat("some content, ", 1000)
	snap := save(t, s, "shop", "one", content)
	path := s.blob(snap.Volumes[0].Blob)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := save(t, s, "shop", "two", "other content")
	swapped, err := os.ReadFile(s.blob(other.Volumes[0].Blob))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{"flipped": flipped, "cut": good[:len(good)/2], "empty": nil, "swapped": swapped} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		err := s.Check(t.Context(), snap)
		if _, ok := errors.AsType[*CorruptError](err); !ok || !strings.Contains(err.Error(), "shop_data") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), snap); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

// TestInterruptedSave: whatever ends a save leaves no snapshot, and what it leaves is swept.
func TestInterruptedSave(t *testing.T) {
	s := Store{t.TempDir()}
	save(t, s, "shop", "keep", "kept")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	boom := errors.New("boom")
	for name, add := range map[string]func() error{
		"read":   func() error { _, err := s.Add(t.Context(), iotest.ErrReader(boom), 0); return err },
		"cancel": func() error { _, err := s.Add(ended, strings.NewReader("x"), 0); return err },
		"large":  func() error { _, err := s.Add(t.Context(), strings.NewReader("xxxx"), 3); return err },
	} {
		if err := s.Saving(t.Context(), add); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := blobs(t, s); n != 1 {
			t.Errorf("%s: %d blobs", name, n)
		}
	}
	if _, err := s.Add(t.Context(), strings.NewReader("xxx"), 3); err != nil {
		t.Errorf("as much as is allowed: %v", err)
	}
	// As after a kill: a blob without a snapshot, and one that was being written.
	if err := os.WriteFile(filepath.Join(s.Dir, "blobs", ".tmp-1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, s, "shop", "gone", "gone")
	if _, err := s.Remove(t.Context(), "shop", "gone"); err != nil || blobs(t, s) != 1 {
		t.Errorf("got %v, %d blobs", err, blobs(t, s))
	}
}

// TestSweepKeepsWhatItCannotRead: a manifest of another version may name any blob.
func TestSweepKeepsWhatItCannotRead(t *testing.T) {
	s := Store{t.TempDir()}
	save(t, s, "shop", "one", "content")
	save(t, s, "shop", "two", "else")
	if err := os.WriteFile(s.manifest("shop", "two"), []byte(`{"schema": 9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List("shop"); err == nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := s.Remove(t.Context(), "shop", "one"); err == nil || blobs(t, s) != 2 {
		t.Errorf("got %v, %d blobs", err, blobs(t, s))
	}
}

func TestPending(t *testing.T) {
	s := Store{t.TempDir()}
	w, err := s.Begin(t.Context(), "shop", time.Minute)
	if err != nil || w.Left != nil || s.Unfinished("shop") {
		t.Fatalf("got %+v, %v", w, err)
	}
	if _, err := s.Begin(t.Context(), "shop", time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if err := errors.Join(w.Note(Pending{Paused: []string{"c1"}, Restoring: "one", Safety: "two"}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if !s.Unfinished("shop") || s.Unfinished("other") {
		t.Error("unfinished work is not seen")
	}
	w, err = s.Begin(t.Context(), "shop", time.Minute)
	if err != nil || w.Left == nil || fmt.Sprint(w.Left.Paused) != "[c1]" || w.Left.Safety != "two" {
		t.Fatalf("got %+v, %v", w, err)
	}
	if err := errors.Join(w.Done(), w.Done(), w.Close()); err != nil || s.Unfinished("shop") {
		t.Errorf("after the end: %v", err)
	}
}

func archive(t *testing.T, files ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range files {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestDiff(t *testing.T) {
	before := archive(t, tar.Header{Name: "volume/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "volume/same", Size: 1, ModTime: when}, tar.Header{Name: "volume/gone", Size: 2}, tar.Header{Name: "volume/larger", Size: 1}, tar.Header{Name: "volume/d/mode", Mode: 0o600})
	after := archive(t, tar.Header{Name: "volume/", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "volume/same", Size: 1, ModTime: when.Add(time.Hour)}, tar.Header{Name: "volume/larger", Size: 3}, tar.Header{Name: "volume/new", Size: 4}, tar.Header{Name: "volume/d/mode", Mode: 0o644})
	changes, err := Diff(before, after)
	want := "[{M / 0 0} {M /d/mode 0 0} {D /gone 2 0} {M /larger 1 3} {A /new 0 4}]"
	if got := fmt.Sprint(changes); err != nil || got != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	if _, err := Diff(strings.NewReader("no archive at all"), archive(t)); err == nil {
		t.Error("what is no archive was compared")
	}
}
