// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// write makes a file of a size with data at some places.
func write(t *testing.T, size int64, data map[int64][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(Make(f), f.Truncate(size))
	for at, b := range data {
		_, writeErr := f.WriteAt(b, at)
		err = errors.Join(err, writeErr)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

// holes says whether the file system of a test's folder has holes.
func holes(t *testing.T) bool {
	t.Helper()
	n, err := Allocated(write(t, 8<<20, nil))
	return err == nil && n < 1<<20
}

var odd = map[int64][]byte{0: []byte("begin"), 3<<20 + 17: bytes.Repeat([]byte("x"), 200_000), 16<<20 - 3: []byte("end")}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Error("the copy differs")
	}
}

func TestCopy(t *testing.T) {
	src := write(t, 16<<20, odd)
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Copy(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	same(t, src, dst)
	if n, err := Allocated(dst); err != nil || holes(t) && n > 2<<20 {
		t.Errorf("the copy takes up %d bytes, %v", n, err)
	}
	if err := Copy(t.Context(), dst, src); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	same(t, src, dst)
}

func TestCopyInterrupted(t *testing.T) {
	src := write(t, 4<<20, odd)
	dst := filepath.Join(t.TempDir(), "copy")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Copy(ctx, dst, src)
	if _, statErr := os.Stat(dst); err != nil && !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("after %v a half copy is left (%v)", err, statErr)
	}
}

func TestPunch(t *testing.T) {
	if !holes(t) {
		t.Skip("this file system has no holes")
	}
	data := map[int64][]byte{0: make([]byte, 6<<20), 6 << 20: bytes.Repeat([]byte{7}, 100_000), 7 << 20: make([]byte, 1<<20)}
	name, before := write(t, 8<<20, data), write(t, 8<<20, data)
	had, err := Allocated(name)
	if err != nil {
		t.Fatal(err)
	}
	given, err := Punch(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	has, err := Allocated(name)
	if err != nil || given != had-has || has > 1<<20 {
		t.Errorf("it took up %d bytes and takes up %d; %d were given back (%v)", had, has, given, err)
	}
	same(t, before, name)
	if again, err := Punch(t.Context(), name); again != 0 || err != nil {
		t.Errorf("again: %d, %v", again, err)
	}
}

func TestFree(t *testing.T) {
	if n, err := Free(t.TempDir()); n <= 0 || err != nil {
		t.Errorf("%d bytes are free, %v", n, err)
	}
	if _, err := Allocated(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
