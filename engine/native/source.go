// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/seed71221737/dev/engine/native/archive"
)

// Source is where the bundle comes from.
type Source struct {
	// Name stands in errors and in `dev engine version`.
	Name string
	// Open starts reading the archive.
	Open func() (io.ReadCloser, error)
}

// NoBundleError says that this build of dev carries no engine and none lies
// beside it.
type NoBundleError struct{ Tried []string }

func (e *NoBundleError) Error() string {
	return fmt.Sprintf("find the engine's bundle: this build of dev carries none, and there is none at %q", e.Tried)
}

// Hint names the next step.
func (e *NoBundleError) Hint() string {
	return "build it with `make bundle`, set DEV_ENGINE_BUNDLE to one, or install a release of dev for Linux"
}

// bundleName is the file name of a bundle for this machine.
func bundleName() string { return "engine-linux-" + runtime.GOARCH + ".tar.zst" }

// FindSource finds the bundle: the one DEV_ENGINE_BUNDLE names, the one built
// into the program, or one beside the executable exe.
func FindSource(getenv func(string) string, exe string) (Source, error) {
	if name := getenv("DEV_ENGINE_BUNDLE"); name != "" {
		if _, err := os.Stat(name); err != nil {
			return Source{}, fmt.Errorf("find the engine's bundle that DEV_ENGINE_BUNDLE names: %w", err)
		}
		return fileSource(name), nil
	}
	if len(embedded) > 0 {
		return Source{Name: "built into dev", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(embedded)), nil
		}}, nil
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	dir := filepath.Dir(exe)
	tried := []string{
		filepath.Join(dir, bundleName()),
		filepath.Join(dir, "..", "dist", bundleName()),
		filepath.Join(dir, "..", "share", "dev", bundleName()),
	}
	for _, name := range tried {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			return fileSource(name), nil
		}
	}
	return Source{}, &NoBundleError{Tried: tried}
}

func fileSource(name string) Source {
	return Source{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(name) }}
}

// Manifest reads what the bundle contains, and no more of it.
func (s Source) Manifest() (archive.Manifest, error) {
	raw, err := s.Open()
	if err != nil {
		return archive.Manifest{}, fmt.Errorf("open bundle %q: %w", s.Name, err)
	}
	defer raw.Close() // only read
	return archive.ReadManifest(s.Name, raw)
}
