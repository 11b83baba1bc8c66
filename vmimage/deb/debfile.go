// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Bounds on what one package may unpack to. The largest package of an image, the kernel, has about 5000 files and 110 MB.
const (
	maxEntries = 200_000
	maxData    = 4 << 30
	maxPath    = 4096
)

// Entry is one file of a package.
type Entry struct {
	// Path is relative, slash-separated and clean.
	Path string
	// Type is one of tar.TypeReg, TypeDir, TypeSymlink and TypeLink.
	Type byte
	// Mode are permission bits with setuid, setgid and sticky.
	Mode     int64
	UID, GID int
	Size     int64
	// Link is a symbolic link's target as it stands, or a hard link's target as a clean path.
	Link string
}

// TraversalError says that a package holds a path or link that leaves the root.
type TraversalError struct{ Path, Link string }

func (e *TraversalError) Error() string {
	if e.Link != "" {
		return fmt.Sprintf("link %q to %q leaves the root", e.Path, e.Link)
	}
	return fmt.Sprintf("path %q leaves the root", e.Path)
}

// ReadFiles calls f for each file of a package's data archive; r in f reads a regular file's contents and is only good during the call. The name
// stands in errors.
func ReadFiles(name string, r io.Reader, f func(e Entry, r io.Reader) error) error {
	if err := readFiles(r, f); err != nil {
		return fmt.Errorf("read package %q: %w", name, err)
	}
	return nil
}

func readFiles(r io.Reader, f func(Entry, io.Reader) error) error {
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return errors.New("it is not an ar archive")
	}
	for first := true; ; first = false {
		name, size, err := arHeader(r)
		if errors.Is(err, io.EOF) {
			return errors.New("it has no data archive")
		}
		if err != nil {
			return err
		}
		if first && name != "debian-binary" {
			return fmt.Errorf("its first member is %q, not %q", name, "debian-binary")
		}
		member := io.LimitReader(r, size)
		if strings.HasPrefix(name, "data.tar") {
			return readData(name, member, f)
		}
		if n, err := io.Copy(io.Discard, io.LimitReader(r, size+size%2)); err != nil || n < size {
			return fmt.Errorf("member %q is cut off", name)
		}
	}
}

// arHeader reads one member's header; sizes are bounded by the data limit.
func arHeader(r io.Reader) (name string, size int64, err error) {
	var h [60]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return "", 0, errors.New("an ar header is cut off")
		}
		return "", 0, err
	}
	if string(h[58:]) != "`\n" {
		return "", 0, errors.New("an ar header is malformed")
	}
	name = strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	size, err = strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 || size > maxData {
		return "", 0, fmt.Errorf("ar member %q has no usable size", name)
	}
	return name, size, nil
}

func readData(name string, r io.Reader, f func(Entry, io.Reader) error) error {
	var err error
	if path.Ext(name) == ".zst" {
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxDict), zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	} else {
		r, err = decompress(name, r)
	}
	if err != nil {
		return fmt.Errorf("member %q: %w", name, err)
	}
	t := tar.NewReader(&limited{r: r, left: maxData})
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
		if n >= maxEntries {
			return fmt.Errorf("member %q has more than %d files", name, maxEntries)
		}
		e, err := newEntry(h)
		if err != nil {
			return err
		}
		if e.Path == "." {
			continue
		}
		if err := f(e, t); err != nil {
			return err
		}
	}
}

func newEntry(h *tar.Header) (Entry, error) {
	p, err := cleanPath(h.Name)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: p, Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink:
		e.Link = h.Linkname
		err = checkLink(p, h.Linkname)
	case tar.TypeLink:
		e.Link, err = cleanPath(h.Linkname)
	default:
		return Entry{}, fmt.Errorf("%q is of type %q, which a package may not hold", p, h.Typeflag)
	}
	return e, err
}

// cleanPath makes a path relative and refuses one that leaves the root.
func cleanPath(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("path %.60q is too long or holds a NUL", name)
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", &TraversalError{Path: name}
		}
	}
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	if p == "" {
		p = "."
	}
	return p, nil
}

// checkLink refuses a symbolic link that climbs out of the root: harmless where it is followed inside the image, but nothing honest has it.
func checkLink(name, target string) error {
	if target == "" || len(target) > maxPath || strings.ContainsRune(target, 0) {
		return fmt.Errorf("link %q has no usable target", name)
	}
	if path.IsAbs(target) {
		return nil
	}
	depth := strings.Count(name, "/")
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "..":
			depth--
		case "", ".":
		default:
			depth++
		}
		if depth < 0 {
			return &TraversalError{Path: name, Link: target}
		}
	}
	return nil
}

// Licenses reads a Debian copyright file and lists the SPDX-like short names it declares, sorted and without doubles; a file that is not in the
// machine-readable format gives none.
func Licenses(copyright []byte) []string {
	seen := map[string]bool{}
	var list []string
	if !bytes.HasPrefix(bytes.TrimSpace(copyright), []byte("Format:")) {
		return nil
	}
	for _, line := range strings.Split(string(copyright), "\n") {
		v, ok := strings.CutPrefix(line, "License:")
		v = strings.TrimSpace(v)
		if ok && v != "" && len(v) < 200 && !seen[v] {
			seen[v] = true
			list = append(list, v)
		}
	}
	return list
}
