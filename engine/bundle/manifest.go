// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Manifest describes a bundle. It is the first entry of the archive, and lies
// beside it as <archive>.json, there with the archive's own digest.
type Manifest struct {
	Schema     int                 `json:"schema"`
	Version    string              `json:"version"` // names the contents: the engine's release and a digest
	OS         string              `json:"os"`
	Arch       string              `json:"arch"`
	Components []ManifestComponent `json:"components"`
	Files      []ManifestFile      `json:"files"`             // sorted by path; without the manifest itself
	Archive    *ManifestFile       `json:"archive,omitempty"` // only beside the archive, never within
}

// ManifestComponent is one program and where it comes from.
type ManifestComponent struct {
	Name    string `json:"name"`
	Module  string `json:"module"`
	Version string `json:"version"`
	License string `json:"license"`
}

// ManifestFile is one file of the bundle.
type ManifestFile struct {
	Path   string `json:"path"`
	Mode   string `json:"mode,omitempty"` // octal, such as "0755"
	Size   int64  `json:"size"`           // bytes
	SHA256 string `json:"sha256"`
}

// newManifest describes files, which it sorts.
func newManifest(p pins, arch string, files []ManifestFile) Manifest {
	m := Manifest{Schema: 1, OS: "linux", Arch: arch}
	for _, c := range components(p) {
		m.Components = append(m.Components, ManifestComponent{Name: c.Name, Module: c.Module, Version: c.Version, License: c.License})
	}
	m.Files = slices.SortedFunc(slices.Values(files), func(a, b ManifestFile) int { return strings.Compare(a.Path, b.Path) })
	m.Version = p.Engine + "-" + contentDigest(m)[:12]
	return m
}

// contentDigest covers everything the manifest says but its version.
func contentDigest(m Manifest) string {
	h := sha256.New()
	fmt.Fprintln(h, m.Schema, m.OS, m.Arch)
	for _, c := range m.Components {
		fmt.Fprintln(h, c.Name, c.Module, c.Version, c.License)
	}
	for _, f := range m.Files {
		fmt.Fprintln(h, f.Path, f.Mode, f.Size, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (m Manifest) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// hashFile returns a file's SHA-256 in hex and its size in bytes.
func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, fmt.Errorf("read %q: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}
