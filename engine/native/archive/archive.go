// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package archive reads the engine's bundle: a zstd-compressed tar whose first
// entry is its manifest, followed by the files the manifest lists.
//
// A bundle is foreign input until it is verified: every file is checked
// against the manifest (path, size, mode, SHA-256) while it is written, links
// and paths that leave the folder are refused, and sizes are bounded. What was
// unpacked once is recognised later by a stamp (size, time and mode of every
// file), so that a start does not hash a hundred megabytes.
//
// It knows nothing about running the engine.
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// ManifestName is the name of the archive's first entry, and of the manifest's
// copy in a folder that was unpacked.
const ManifestName = "manifest.json"

// maxWindow bounds the memory that a hostile archive can ask the decoder for.
const maxWindow = 128 << 20

// DamagedError says that a bundle, or a folder unpacked from one, is not what
// its manifest says.
type DamagedError struct {
	// Name is the file or folder.
	Name string
	// Err is what is wrong with it.
	Err error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("bundle %q is damaged: %v", e.Name, e.Err) }

func (e *DamagedError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *DamagedError) Hint() string {
	return "get the bundle again (`make bundle`, or reinstall dev)"
}

// Reader reads one archive from front to back.
type Reader struct {
	name     string
	zstd     *zstd.Decoder
	tar      *tar.Reader
	manifest Manifest
	raw      []byte
	// volatile leaves syncing out, for fuzzing.
	volatile bool
}

// NewReader starts reading an archive and parses its manifest. The name stands
// in errors. Close the reader after use; it does not close r.
func NewReader(name string, r io.Reader) (*Reader, error) {
	return newReader(name, r, 2) // decompresses ahead while files are written
}

// ReadManifest parses an archive's manifest and reads little more of it. The
// name stands in errors.
func ReadManifest(name string, r io.Reader) (Manifest, error) {
	a, err := newReader(name, r, 1)
	if err != nil {
		return Manifest{}, err
	}
	a.Close()
	return a.manifest, nil
}

func newReader(name string, r io.Reader, threads int) (_ *Reader, err error) {
	defer func() {
		if err != nil {
			err = &DamagedError{Name: name, Err: err}
		}
	}()
	dec, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(threads))
	if err != nil {
		return nil, err
	}
	a := &Reader{name: name, zstd: dec, tar: tar.NewReader(dec)}
	if err := a.readManifest(); err != nil {
		dec.Close()
		return nil, err
	}
	return a, nil
}

func (a *Reader) readManifest() error {
	h, err := a.tar.Next()
	if err != nil {
		return fmt.Errorf("read first entry: %w", noEOF(err))
	}
	if h.Name != ManifestName || h.Typeflag != tar.TypeReg {
		return fmt.Errorf("first entry is %q, not %q", h.Name, ManifestName)
	}
	if h.Size > maxManifest {
		return fmt.Errorf("manifest of %d bytes is larger than %d", h.Size, maxManifest)
	}
	if a.raw, err = io.ReadAll(a.tar); err != nil {
		return fmt.Errorf("read manifest: %w", noEOF(err))
	}
	a.manifest, err = ParseManifest(a.raw)
	return err
}

// Manifest is what the archive says it contains.
func (a *Reader) Manifest() Manifest { return a.manifest }

// Close frees the decoder.
func (a *Reader) Close() { a.zstd.Close() }

// Unpack writes all files into dir, which must exist and be empty, each
// verified and synced to disk, with the manifest and a stamp beside them. On
// an error the folder is left half-written: the caller removes it.
func (a *Reader) Unpack(dir string) error {
	if err := a.unpack(dir); err != nil {
		var path *fs.PathError
		if errors.As(err, &path) { // the disk's fault, not the bundle's
			return fmt.Errorf("unpack bundle %q: %w", a.name, err)
		}
		return &DamagedError{Name: a.name, Err: err}
	}
	return nil
}

func (a *Reader) unpack(dir string) error {
	missing := map[string]File{}
	for _, f := range a.manifest.Files {
		missing[f.Path] = f
	}
	for {
		h, err := a.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read next entry: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue // folders are made as the files need them
		}
		f, err := expect(missing, h)
		if err != nil {
			return err
		}
		if err := a.writeFile(dir, f); err != nil {
			return err
		}
		delete(missing, f.Path)
	}
	for _, f := range a.manifest.Files {
		if _, ok := missing[f.Path]; ok {
			return fmt.Errorf("file %q is in the manifest but not in the archive", f.Path)
		}
	}
	return a.finish(dir)
}

// expect matches an entry with the manifest.
func expect(missing map[string]File, h *tar.Header) (File, error) {
	if h.Typeflag != tar.TypeReg {
		return File{}, fmt.Errorf("entry %q is not a regular file", h.Name)
	}
	f, ok := missing[h.Name]
	if !ok {
		return File{}, fmt.Errorf("entry %q is not in the manifest, or is there twice", h.Name)
	}
	if h.Size != f.Size {
		return File{}, fmt.Errorf("file %q has %d bytes, the manifest says %d", f.Path, h.Size, f.Size)
	}
	return f, nil
}

func (a *Reader) writeFile(dir string, f File) (err error) {
	name := filepath.Join(dir, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(out, sum), a.tar, f.Size); err != nil {
		return fmt.Errorf("read file %q: %w", f.Path, noEOF(err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("file %q has SHA-256 %s, the manifest says %s", f.Path, got, f.SHA256)
	}
	if err := out.Chmod(f.FileMode()); err != nil {
		return err
	}
	if a.volatile {
		return nil
	}
	return out.Sync()
}

// finish writes manifest and stamp, and syncs the folders.
func (a *Reader) finish(dir string) error {
	if err := writeSynced(filepath.Join(dir, ManifestName), a.raw); err != nil {
		return err
	}
	if err := writeStamp(dir, a.manifest); err != nil {
		return err
	}
	if a.volatile {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return atomicfile.SyncDir(path)
	})
}

func writeSynced(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// noEOF makes the end of the archive inside an entry an error that says so.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
