// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package program

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func pack(t *testing.T, content string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return w.EncodeAll([]byte(content), sum[:])
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	packed := Program{"dev-x", "DEV_X", pack(t, "the program")}
	name, err := packed.unpack(dir)
	if err != nil || read(t, name) != "the program" {
		t.Fatal(name, err)
	}
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(name, []byte("something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	if name, err = packed.unpack(dir); err != nil || read(t, name) != "the program" {
		t.Errorf("an altered program is used: %v", err)
	}
	old := time.Now().Add(-2 * unused)
	if err := os.Chtimes(filepath.Dir(name), old, old); err != nil {
		t.Fatal(err)
	}
	next, err := Program{"dev-x", "DEV_X", pack(t, "another version")}.unpack(dir)
	if err != nil || next == name {
		t.Fatal(next, err)
	}
	if isFile(name) || !isFile(next) {
		t.Error("the old version is kept, or the new one is not")
	}
}

func TestUnpackRefuses(t *testing.T) {
	good := pack(t, "the program")
	other := append(make([]byte, sha256.Size), good[sha256.Size:]...)
	for name, c := range map[string]struct {
		packed    []byte
		dir, want string
	}{
		"truncated":        {good[:len(good)-3], t.TempDir(), "unpack the program dev-x"},
		"almost nothing":   {good[:5], t.TempDir(), "too few"},
		"another's digest": {other, t.TempDir(), "damaged"},
		"no folder":        {good, "", "DEV_HOME"},
	} {
		if _, err := (Program{"dev-x", "DEV_X", c.packed}).Find(Options{Dir: c.dir}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	p := Program{Name: "dev-x", Variable: "DEV_X"}
	dir := t.TempDir()
	exe := filepath.Join(dir, "dev")
	_, err := p.Find(Options{Executable: exe})
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), dir) || !strings.Contains(missing.Hint(), "cmd/dev-x") {
		t.Errorf("got %v", err)
	}
	beside := filepath.Join(dir, "bin", p.file())
	if err := errors.Join(os.MkdirAll(filepath.Dir(beside), 0o755), os.WriteFile(beside, nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Find(Options{Executable: exe}); err != nil || got != beside {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := p.Find(Options{Executable: exe, Environ: []string{"DEV_X=" + exe + "x"}}); err == nil {
		t.Errorf("got %s, where DEV_X names nothing", got)
	}
}
