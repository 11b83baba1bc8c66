// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
)

// inflate writes images that an engine saved as a file with plain layers: to unpack them costs an emulated machine minutes, and this host seconds.
// What describes the compressed layers is left out; the engine reads the older manifest.json, which names layers by file.
func inflate(file string, saved io.Reader) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	layer, err := os.CreateTemp("", "dev-layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	out, in := tar.NewWriter(f), tar.NewReader(saved)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if h.Name == "index.json" || h.Name == "oci-layout" {
			continue
		}
		if err := inflateEntry(out, h, in, layer); err != nil {
			return err
		}
	}
}

// inflateEntry copies one file of an archive, by way of the scratch file if it is compressed.
func inflateEntry(out *tar.Writer, h *tar.Header, content io.Reader, scratch *os.File) error {
	r := bufio.NewReader(content)
	if magic, err := r.Peek(2); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(out, r)
		return err
	}
	plain, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	if err := errors.Join(scratch.Truncate(0), rewind(scratch)); err != nil {
		return err
	}
	if h.Size, err = io.Copy(scratch, plain); err != nil {
		return err
	}
	if err := errors.Join(rewind(scratch), out.WriteHeader(h)); err != nil {
		return err
	}
	_, err = io.Copy(out, scratch)
	return err
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}
