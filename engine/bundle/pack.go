// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Window of the compression, in bytes: what a reader must hold in memory. Twice
// as much gains under half a per cent.
const window = 16 << 20

// pack writes the archive of the files of m, found under root, to w. The same
// files give the same bytes: nothing of the clock, the user or the number of
// processors gets in.
func pack(w io.Writer, m Manifest, root string) error {
	head, err := m.encode()
	if err != nil {
		return err
	}
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithEncoderCRC(true))
	if err != nil {
		return fmt.Errorf("start compression: %w", err)
	}
	tw := tar.NewWriter(zw)
	if err := packEntry(tw, "manifest.json", 0o644, int64(len(head))); err != nil {
		return err
	}
	if _, err := tw.Write(head); err != nil {
		return fmt.Errorf("pack %q: %w", "manifest.json", err)
	}
	for _, f := range m.Files {
		if err := packFile(tw, f, root); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("finish the archive: %w", err)
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("finish compression: %w", err)
	}
	return nil
}

func packEntry(tw *tar.Writer, name string, mode, size int64) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %q: %w", name, err)
	}
	return nil
}

func packFile(tw *tar.Writer, f ManifestFile, root string) error {
	mode, err := strconv.ParseInt(f.Mode, 8, 64)
	if err != nil {
		return fmt.Errorf("pack %q: mode %q: %w", f.Path, f.Mode, err)
	}
	src, err := os.Open(filepath.Join(root, filepath.FromSlash(f.Path)))
	if err != nil {
		return fmt.Errorf("pack %q: %w", f.Path, err)
	}
	defer src.Close()
	if err := packEntry(tw, f.Path, mode, f.Size); err != nil {
		return err
	}
	if _, err := io.Copy(tw, src); err != nil {
		return fmt.Errorf("pack %q: %w", f.Path, err)
	}
	return nil
}
