// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/machine/snapshots"
	"github.com/seed71221737/dev/machine/sparse"
)

const diskSize = 64<<20 + 4096 // the last chunk is not a whole one

// newDisk makes a sparse disk with something at its beginning, in its middle and at its end.
func newDisk(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	for at, text := range map[int64]string{4096: "begin", 30 << 20: "middle", diskSize - 3: "end"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func newStore(t *testing.T) snapshots.Store {
	t.Helper()
	return snapshots.Store{Dir: filepath.Join(t.TempDir(), "snapshots"), Machine: "box"}
}

func save(t *testing.T, s snapshots.Store, name, disk string, created time.Time) snapshots.Snapshot {
	t.Helper()
	d, err := s.Begin(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := sparse.Copy(t.Context(), d.Disk(), disk); err != nil {
		t.Fatal(err)
	}
	if err := d.Seal(t.Context(), snapshots.Snapshot{Created: created, State: snapshots.Stopped, Image: "abc", Spec: "cpus: 1\n", Note: "<a & b>"}, d.Disk()); err != nil {
		t.Fatal(err)
	}
	snap, err := d.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestRoundTrip(t *testing.T) {
	s, disk := newStore(t), newDisk(t)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("List of nothing: %v, %v", list, err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	save(t, s, "second", disk, now)
	save(t, s, "first", disk, now.Add(-time.Hour))
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Name != "first" || list[1].Name != "second" {
		t.Fatalf("List: %+v, %v", list, err)
	}
	got, err := s.Get("second")
	if err != nil || got.Problem != nil || got.Note != "<a & b>" || got.Spec != "cpus: 1\n" || !got.Created.Equal(now) || got.Machine != "box" || got.Automatic() {
		t.Fatalf("Get: %+v, %v", got, err)
	}
	if got.Disk.Size != diskSize || got.Disk.Data < 14 || got.Disk.Data > 3*got.Disk.Chunk || got.OnHost <= 0 || got.OnHost > diskSize/2 {
		t.Errorf("disk is %+v, %d bytes on the host", got.Disk, got.OnHost)
	}
	if list[0].Disk.Sums != got.Disk.Sums {
		t.Error("the same disk has two sums")
	}
	to := filepath.Join(t.TempDir(), "out")
	if err := s.Extract(t.Context(), got, to); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(disk)
	have, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(want, have) {
		t.Errorf("the extracted disk differs: %d bytes, %v", len(have), err)
	}
	if err := s.Verify(t.Context(), got); err != nil {
		t.Error(err)
	}
	var exists *snapshots.ExistsError
	if _, err := s.Begin("SECOND"); !errors.As(err, &exists) {
		t.Errorf("a name that differs in case only: %v", err)
	}
	if _, err := s.Remove("second"); err != nil {
		t.Fatal(err)
	}
	var missing *snapshots.NotFoundError
	if _, err := s.Get("second"); !errors.As(err, &missing) {
		t.Errorf("after the removal: %v", err)
	}
	if _, err := s.Remove("first"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder is left: %v", err)
	}
}

// TestSumsKnowHoles: zeros that are written and holes are the same content.
func TestSumsKnowHoles(t *testing.T) {
	s, disk := newStore(t), newDisk(t)
	one := save(t, s, "one", disk, time.Now())
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(t.TempDir(), "full")
	if err := os.WriteFile(full, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if two := save(t, s, "two", full, time.Now()); two.Disk != one.Disk {
		t.Errorf("%+v and %+v", one.Disk, two.Disk)
	}
}

// TestDamage alters each file of a snapshot in each way: the snapshot is named as damaged, and never copied to where it would be used.
func TestDamage(t *testing.T) {
	overwrite := func(at int64, text string) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			if err := os.Chmod(file, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(text), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(old, with string) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			data, err := os.ReadFile(file)
			if err != nil || !bytes.Contains(data, []byte(old)) {
				t.Fatalf("%s has no %q, %v", file, old, err)
			}
			if err := errors.Join(os.Remove(file), os.WriteFile(file, bytes.Replace(data, []byte(old), []byte(with), 1), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(size int64) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			if err := errors.Join(os.Chmod(file, 0o600), os.Truncate(file, size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(t *testing.T, file string) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		file string
		do   func(t *testing.T, file string)
		want string
		// deep is what only reading the disk shows.
		deep bool
	}{
		"manifest missing":    {"snapshot.json", remove, "manifest cannot be read", false},
		"manifest empty":      {"snapshot.json", truncate(0), "manifest cannot be read", false},
		"manifest torn":       {"snapshot.json", truncate(100), "manifest cannot be read", false},
		"manifest altered":    {"snapshot.json", replace("cpus: 1", "cpus: 9"), "manifest was altered", false},
		"disk missing":        {"data.img", remove, "disk cannot be used", false},
		"disk torn":           {"data.img", truncate(1 << 20), "disk has 1048576 bytes instead of", false},
		"sums missing":        {"data.sums", remove, "sums cannot be read", true},
		"sums torn":           {"data.sums", truncate(32), "sums were altered", true},
		"data altered":        {"data.img", overwrite(30<<20, "muddle"), "differs from what was saved", true},
		"hole written":        {"data.img", overwrite(50<<20, "x"), "differs from what was saved", true},
		"data zeroed":         {"data.img", overwrite(4096, "\x00\x00\x00\x00\x00"), "differs from what was saved", true},
		"last bytes altered":  {"data.img", overwrite(diskSize-3, "eND"), "differs from what was saved", true},
		"first bytes altered": {"data.img", overwrite(0, "x"), "from 0 on", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			save(t, s, "snap", newDisk(t), time.Now())
			c.do(t, filepath.Join(s.Dir, "snap", c.file))
			snap, err := s.Get("snap")
			if err != nil {
				t.Fatal(err)
			}
			var damaged *snapshots.DamagedError
			if c.deep == errors.As(snap.Problem, &damaged) {
				t.Errorf("at a glance: %v", snap.Problem)
			}
			to := filepath.Join(t.TempDir(), "out")
			err = s.Extract(t.Context(), snap, to)
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `"snap"`) {
				t.Errorf("Extract: %v; want %q", err, c.want)
			}
			if err := s.Verify(t.Context(), snap); !errors.As(err, &damaged) {
				t.Errorf("Verify: %v", err)
			}
			if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Extract left a file: %v", err)
			}
			if _, err := s.Remove("snap"); err != nil {
				t.Errorf("a damaged snapshot cannot be removed: %v", err)
			}
		})
	}
}

func TestDraft(t *testing.T) {
	s, disk := newStore(t), newDisk(t)
	d, err := s.Begin("snap")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(); err == nil {
		t.Error("a draft without contents becomes a snapshot")
	}
	// What may be the machine's own disk is sealed where it is, and joins the draft later.
	if err := d.Seal(t.Context(), snapshots.Snapshot{Spec: "x"}, disk); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("a draft is listed: %v, %v", list, err)
	}
	if _, err := d.Commit(); err == nil {
		t.Error("a draft without its disk becomes a snapshot")
	}
	if err := os.Link(disk, d.Disk()); err != nil {
		t.Fatal(err)
	}
	again, err := s.Reopen(d.Folder(), "snap")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(d.Folder()); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reopen(d.Folder(), "snap"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a draft that is a snapshot: %v", err)
	}
	d, err = s.Begin("gone")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reopen(d.Folder(), "gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the sweep: %v", err)
	}
	if snap, err := s.Get("snap"); err != nil || snap.Problem != nil {
		t.Errorf("after the sweep: %+v, %v", snap, err)
	}
}

func TestCancelled(t *testing.T) {
	s, disk := newStore(t), newDisk(t)
	snap := save(t, s, "snap", disk, time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := filepath.Join(t.TempDir(), "out")
	if err := s.Extract(ctx, snap, to); !errors.Is(err, context.Canceled) {
		t.Errorf("Extract: %v", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Extract left a file: %v", err)
	}
	if err := s.Verify(ctx, snap); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: %v", err)
	}
}

// TestNewer: what a newer dev made is neither used nor called damaged. The file in testdata is such a one, with its digest.
func TestNewer(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(s.Dir, "later")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "newer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Get("later")
	var newer *snapshots.NewerError
	if err != nil || !errors.As(snap.Problem, &newer) || newer.Hint() != "use a newer dev" {
		t.Errorf("Get: %v, %v", snap.Problem, err)
	}
	if err := s.Extract(t.Context(), snap, filepath.Join(t.TempDir(), "out")); !errors.As(err, &newer) {
		t.Errorf("Extract: %v", err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "before-upgrade", "2026-01-02_a.b", strings.Repeat("x", 63)} {
		if err := snapshots.CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", ".tmp-x", "a/b", `a\b`, "a b", "x.", "CON", "nul.txt", strings.Repeat("x", 64), "ä"} {
		if snapshots.CheckName(bad) == nil {
			t.Errorf("%q can be a name", bad)
		}
	}
}

// FuzzManifest: whatever is in a manifest's file, reading it ends, and what is taken for good is what was written.
func FuzzManifest(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "newer.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"sha256":"","snapshot":{}}`))
	f.Add([]byte(`{"snapshot":[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := snapshots.Store{Dir: t.TempDir(), Machine: "box"}
		if err := os.Mkdir(filepath.Join(s.Dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "x", "snapshot.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if snap, err := s.Get("x"); err != nil || snap.Problem == nil {
			t.Errorf("%q is a snapshot without a disk: %+v, %v", data, snap, err)
		}
	})
}
