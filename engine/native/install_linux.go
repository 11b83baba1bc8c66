// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/seed71221737/dev/engine/native/archive"
	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// installation is an unpacked bundle.
type installation struct {
	dir      string
	manifest archive.Manifest
}

// bin is the folder of the engine's programs.
func (i installation) bin() string { return filepath.Join(i.dir, "bin") }

// install makes sure that the bundle is unpacked and unaltered.
func install(ctx context.Context, src Source, bundles string) (installation, error) {
	m, err := src.Manifest()
	if err != nil {
		return installation{}, err
	}
	if m.OS != "linux" || m.Arch != runtime.GOARCH {
		return installation{}, fmt.Errorf("use bundle %q: it is for %s/%s, this machine is linux/%s", src.Name, m.OS, m.Arch, runtime.GOARCH)
	}
	dir := filepath.Join(bundles, m.ID())
	if _, err := archive.Check(dir); err == nil {
		return installation{dir, m}, nil
	}
	lock, err := waitLock(ctx, filepath.Join(bundles, ".lock"))
	if err != nil {
		return installation{}, err
	}
	defer lock.unlock()
	if _, err := archive.Check(dir); err == nil { // another process was faster
		return installation{dir, m}, nil
	}
	in, err := openSource(src)
	if err != nil {
		return installation{}, err
	}
	defer in.Close()
	if in.Manifest().ID() != m.ID() {
		return installation{}, fmt.Errorf("unpack bundle %q: it was replaced meanwhile", src.Name)
	}
	if err := unpackInto(in, bundles, dir); err != nil {
		return installation{}, err
	}
	return installation{dir, m}, nil
}

// sourceReader closes the archive and what it is read from.
type sourceReader struct {
	*archive.Reader
	raw io.Closer
}

func (s sourceReader) Close() {
	s.Reader.Close()
	_ = s.raw.Close() // only read
}

func openSource(src Source) (sourceReader, error) {
	raw, err := src.Open()
	if err != nil {
		return sourceReader{}, fmt.Errorf("open bundle %q: %w", src.Name, err)
	}
	in, err := archive.NewReader(src.Name, raw)
	if err != nil {
		return sourceReader{}, errors.Join(err, raw.Close())
	}
	return sourceReader{in, raw}, nil
}

// unpackInto unpacks beside dir and puts the result in its place, so that dir
// is always whole. The caller holds the lock of the bundles' folder.
func unpackInto(in sourceReader, bundles, dir string) (err error) {
	if err := sweep(bundles); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(bundles, ".tmp-")
	if err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	fresh := filepath.Join(tmp, "new")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	if err := in.Unpack(fresh); err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(tmp, "altered")); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("replace altered bundle: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	return atomicfile.SyncDir(bundles)
}

// sweep removes what an interrupted unpacking left. The caller holds the lock.
func sweep(bundles string) error {
	entries, err := os.ReadDir(bundles)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			if err := os.RemoveAll(filepath.Join(bundles, e.Name())); err != nil {
				return fmt.Errorf("remove interrupted unpacking: %w", err)
			}
		}
	}
	return nil
}

// removeOld removes unpacked bundles other than keep that no process runs a
// program of: a container's shim keeps its bundle.
func removeOld(ctx context.Context, bundles, keep string) error {
	lock, err := waitLock(ctx, filepath.Join(bundles, ".lock"))
	if err != nil {
		return err
	}
	defer lock.unlock()
	entries, err := os.ReadDir(bundles)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(bundles, e.Name())
		if !e.IsDir() || dir == keep || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		if running, err := processesUnder(real); err != nil || len(running) > 0 {
			continue // not known to be unused: kept
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old engine %q: %w", dir, err)
		}
	}
	return nil
}
