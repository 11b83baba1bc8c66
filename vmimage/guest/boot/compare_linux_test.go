// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// twins makes two folders that hold the same.
func twins(t *testing.T) (a, b string) {
	t.Helper()
	base := t.TempDir()
	a, b = filepath.Join(base, "a"), filepath.Join(base, "b")
	err := errors.Join(
		os.MkdirAll(filepath.Join(a, "folder/deep"), 0o750),
		os.WriteFile(filepath.Join(a, "folder/file"), []byte(strings.Repeat("contents ", 100_000)), 0o640),
		os.Link(filepath.Join(a, "folder/file"), filepath.Join(a, "folder/deep/other name")),
		os.WriteFile(filepath.Join(a, "alone"), []byte("x"), 0o600),
		os.Symlink("folder/file", filepath.Join(a, "link")),
		unix.Mkfifo(filepath.Join(a, "pipe"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", a, b).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return a, b
}

func TestCompareTrees(t *testing.T) {
	a, b := twins(t)
	files, bytes, err := compareTrees(t.Context(), a, b, nil)
	if err != nil || files != 8 || bytes != 1_800_001 {
		t.Errorf("twins: %d files, %d bytes, %v", files, bytes, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := compareTrees(ctx, a, b, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCopyFolderTimes(t *testing.T) {
	a, b := twins(t)
	for _, folder := range []string{b, b + "/folder", b + "/folder/deep"} {
		if err := os.Chtimes(folder, time.Time{}, time.Unix(5, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyFolderTimes(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := compareTrees(t.Context(), a, b, nil); err != nil {
		t.Error(err)
	}
}

func TestCompareTreesFinds(t *testing.T) {
	for what, spoil := range map[string]func(b string) error{
		"contents": func(b string) error {
			info, err := os.Stat(b + "/folder/file")
			if err != nil {
				return err
			}
			f, err := os.OpenFile(b+"/folder/file", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("X"), 700_000)
			return errors.Join(err, f.Close(), os.Chtimes(b+"/folder/file", time.Time{}, info.ModTime()))
		},
		"size": func(b string) error {
			return keepingTime(b+"/alone", func(f string) error { return os.Truncate(f, 5) })
		},
		"time":        func(b string) error { return os.Chtimes(b+"/alone", time.Now(), time.Unix(1, 1)) },
		"permissions": func(b string) error { return os.Chmod(b+"/alone", 0o644) },
		"target": func(b string) error {
			return errors.Join(os.Remove(b+"/link"), os.Symlink("elsewhere", b+"/link"), linkTime(filepath.Dir(b)+"/a/link", b+"/link"), sameFolderTime(b))
		},
		"number of names": func(b string) error {
			return keepingTime(b+"/folder/deep", func(f string) error {
				return errors.Join(os.Remove(f+"/other name"), os.WriteFile(f+"/other name", nil, 0o640))
			})
		},
		"entries": func(b string) error { return errors.Join(os.WriteFile(b+"/more", nil, 0o600), sameFolderTime(b)) },
		"is missing": func(b string) error {
			return errors.Join(os.Rename(b+"/alone", b+"/alien"), sameFolderTime(b))
		},
	} {
		t.Run(what, func(t *testing.T) {
			a, b := twins(t)
			if err := spoil(b); err != nil {
				t.Fatal(err)
			}
			if _, _, err := compareTrees(t.Context(), a, b, nil); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func keepingTime(name string, f func(string) error) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return errors.Join(f(name), os.Chtimes(name, time.Time{}, info.ModTime()))
}

// sameFolderTime gives the second folder the first one's time.
func sameFolderTime(b string) error {
	info, err := os.Stat(filepath.Dir(b) + "/a")
	if err != nil {
		return err
	}
	return os.Chtimes(b, time.Time{}, info.ModTime())
}

func linkTime(a, b string) error {
	var st unix.Stat_t
	if err := unix.Lstat(a, &st); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, b, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func TestMountedOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mounts")
	if err := os.WriteFile(file, []byte("tmpfs /run tmpfs rw 0 0\n/dev/vdc /var ext4 rw 0 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := mountedOn("/var", file); got != "/dev/vdc" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := mountedOn("/run", file); err == nil {
		t.Error("a file system in memory was taken for a disk")
	}
}

func TestFindDisksOfMaintenance(t *testing.T) {
	data := disk{name: "vdb", size: 1 << 30, holds: contentData}
	original := disk{name: "vdc", size: 1 << 30, holds: contentData, serial: "original"}
	report := disk{name: "vdd", size: 1 << 20, holds: contentReport}
	var j job
	if err := j.find([]disk{original, data, report}, true); err != nil || j.data != "/dev/vdb" || j.original != "/dev/vdc" || j.reportDisk != "/dev/vdd" {
		t.Errorf("%+v, %v", j, err)
	}
	blank := disk{name: "vdb", size: 1 << 30, holds: contentBlank}
	for name, disks := range map[string][]disk{"no report": {data, original}, "no original": {data, report}, "a blank disk": {blank, original, report}} {
		if err := j.find(disks, true); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
