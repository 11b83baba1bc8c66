// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/therootcompany/xz"
)

const (
	// maxIndex bounds an unpacked package index in bytes; Debian's main has about 50 MB.
	maxIndex = 512 << 20
	// maxDict bounds the memory that an xz stream may ask for in bytes.
	maxDict = 64 << 20
)

// Package is one binary package of an index.
type Package struct {
	Name, Version, Arch, Source string
	// Filename is the path below the archive's base URL, Size in bytes, SHA256 in lower-case hexadecimal digits.
	Filename string
	Size     int64
	SHA256   string
	// Depends are Pre-Depends and Depends together.
	Depends  [][]Relation
	Provides []Relation
	// Archive is the base URL path's name, as the caller gave it to AddIndex.
	Archive string
}

// IndexFile is the file of a release that lists the packages of a component and architecture.
type IndexFile struct {
	// Path is below dists/<suite>/; ByHash the same by its digest, which survives a mirror's update half-way.
	Path, ByHash string
	Size         int64
	SHA256       string
}

// Index finds the package index of a component and architecture.
func (r *Release) Index(component, arch string) (IndexFile, error) {
	dir := component + "/binary-" + arch
	for _, name := range []string{"Packages.xz", "Packages.gz"} {
		if f, ok := r.files[dir+"/"+name]; ok {
			return IndexFile{Path: dir + "/" + name, ByHash: dir + "/by-hash/SHA256/" + f.sha256, Size: f.size, SHA256: f.sha256}, nil
		}
	}
	return IndexFile{}, fmt.Errorf("release %q has no package index for %q", r.Codename, dir)
}

// ParseIndex unpacks an index file and lists its packages. The data must already be what the release says: ParseIndex checks the digest itself, so
// that nothing unverified is ever parsed.
func ParseIndex(f IndexFile, data []byte, archive string) ([]Package, error) {
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, fmt.Errorf("index %q has SHA-256 %x, the release says %s", f.Path, sum, f.SHA256)
	}
	r, err := decompress(f.Path, bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("unpack index %q: %w", f.Path, err)
	}
	list, err := parsePackages(&limited{r: r, left: maxIndex}, archive)
	if err != nil {
		return nil, fmt.Errorf("parse index %q: %w", f.Path, err)
	}
	return list, nil
}

func parsePackages(r io.Reader, archive string) ([]Package, error) {
	var list []Package
	err := ReadStanzas(r, func(s Stanza) error {
		p, err := parsePackage(s)
		if err != nil {
			return fmt.Errorf("package %q: %w", s["package"], err)
		}
		p.Archive = archive
		list = append(list, p)
		return nil
	})
	return list, err
}

func parsePackage(s Stanza) (Package, error) {
	p := Package{Name: s["package"], Version: s["version"], Arch: s["architecture"], Filename: s["filename"], SHA256: s["sha256"]}
	p.Source, _, _ = strings.Cut(s["source"], " ")
	if p.Source == "" {
		p.Source = p.Name
	}
	var err error
	if p.Size, err = strconv.ParseInt(s["size"], 10, 64); err != nil || p.Size <= 0 {
		return p, fmt.Errorf("size %q is not a number of bytes", s["size"])
	}
	if !validName(p.Name) || p.Version == "" || !validSHA256(p.SHA256) {
		return p, fmt.Errorf("name, version or SHA256 is absent or malformed")
	}
	if !ValidFilename(p.Filename) {
		return p, fmt.Errorf("filename %q leaves the archive", p.Filename)
	}
	if p.Depends, err = ParseRelations(s["pre-depends"] + "," + s["depends"]); err != nil {
		return p, err
	}
	provides, err := ParseRelations(s["provides"])
	for _, group := range provides {
		p.Provides = append(p.Provides, group...)
	}
	return p, err
}

// ValidFilename tells whether a path stays below the archive's base URL.
func ValidFilename(name string) bool {
	return name != "" && path.Clean(name) == name && !path.IsAbs(name) && name != ".." && !strings.HasPrefix(name, "../") &&
		!strings.ContainsAny(name, "\\?#%\x00")
}

// decompress unpacks by the name's suffix.
func decompress(name string, r io.Reader) (io.Reader, error) {
	switch path.Ext(name) {
	case ".xz":
		return xz.NewReader(r, maxDict)
	case ".gz":
		return gzip.NewReader(r)
	}
	return r, nil
}

// limited reads at most left bytes and then fails, where io.LimitReader would call it the end.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		var one [1]byte
		if n, err := l.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, fmt.Errorf("it unpacks to more than the limit")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// readAll reads up to limit bytes and refuses more.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(&limited{r: r, left: limit})
}
