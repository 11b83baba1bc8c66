// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// Schema is the manifest version that this package reads.
const Schema = 1

// Bounds on what a bundle may contain: a real one has about 30 files and
// 200 MB, so these only stop nonsense before it fills the disk.
const (
	maxManifest = 4 << 20
	maxFiles    = 10_000
	maxTotal    = 4 << 30
)

// Manifest says what a bundle contains.
type Manifest struct {
	Schema     int         `json:"schema"`
	Version    string      `json:"version"`
	OS         string      `json:"os"`
	Arch       string      `json:"arch"`
	Components []Component `json:"components"`
	Files      []File      `json:"files"`

	digest string
}

// Component is one program of the engine.
type Component struct {
	Name    string `json:"name"`
	Module  string `json:"module"`
	Version string `json:"version"`
	License string `json:"license"`
}

// File is one file of the bundle. Path is slash-separated and relative, Mode
// an octal number, Size in bytes, SHA256 in lower-case hexadecimal digits.
type File struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// FileMode is the mode as a number; 0 when it is not valid.
func (f File) FileMode() fs.FileMode {
	m, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil || m > 0o777 {
		return 0
	}
	return fs.FileMode(m)
}

// ID names the folder that the bundle is unpacked into: the version, and
// enough of the manifest's digest to tell two builds of one version apart.
func (m Manifest) ID() string { return m.Version + "-" + m.digest[:12] }

// ParseManifest reads and validates a manifest.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if len(data) > maxManifest {
		return m, fmt.Errorf("manifest of %d bytes is larger than %d", len(data), maxManifest)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("parse manifest: %w", err)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	sum := sha256.Sum256(data)
	m.digest = hex.EncodeToString(sum[:])
	return m, nil
}

// versionPattern keeps a version usable as the name of a folder.
var versionPattern = lazyregexp.New(`^[0-9A-Za-z][0-9A-Za-z.+_~-]{0,99}$`)

func (m Manifest) validate() error {
	if m.Schema != Schema {
		return fmt.Errorf("schema %d is not supported (this dev reads %d)", m.Schema, Schema)
	}
	if !versionPattern.MatchString(m.Version) {
		return fmt.Errorf("version %q is not valid", m.Version)
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return fmt.Errorf("%d files are not between 1 and %d", len(m.Files), maxFiles)
	}
	return validateFiles(m.Files)
}

func validateFiles(files []File) error {
	seen := map[string]bool{}
	var total int64
	for _, f := range files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		if seen[f.Path] {
			return fmt.Errorf("file %q is listed twice", f.Path)
		}
		seen[f.Path] = true
		if total += f.Size; total > maxTotal {
			return fmt.Errorf("files are larger than %d bytes together", int64(maxTotal))
		}
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("file %q is also the folder of %q", dir, f.Path)
			}
		}
	}
	return nil
}

func (f File) validate() error {
	switch sum, err := hex.DecodeString(f.SHA256); {
	case path.Clean(f.Path) != f.Path, !filepath.IsLocal(filepath.FromSlash(f.Path)), strings.ContainsAny(f.Path, "\\:\x00"):
		return errors.New("path is not a clean relative one")
	case strings.HasPrefix(f.Path, "."), f.Path == ManifestName:
		return errors.New("name is reserved")
	case f.FileMode() == 0:
		return fmt.Errorf("mode %q is not an octal number between 0001 and 0777", f.Mode)
	case f.Size < 0 || f.Size > maxTotal:
		return fmt.Errorf("size %d is not between 0 and %d", f.Size, int64(maxTotal))
	case err != nil || len(sum) != sha256.Size || strings.ToLower(f.SHA256) != f.SHA256:
		return fmt.Errorf("sha256 %q is not 64 lower-case hexadecimal digits", f.SHA256)
	}
	return nil
}
