// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the default spec and lock
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// DefaultSpec and DefaultLock make the image that dev uses when the user gives no other; DefaultKeyring are Debian's archive keys.
var (
	//go:embed data/image.yaml
	DefaultSpec []byte
	//go:embed data/image.lock.json
	DefaultLock []byte
	//go:embed data/debian-archive-keyring.gpg
	DefaultKeyring []byte
)

// SpecSchema is the version of the image spec that this package reads.
const SpecSchema = 1

// maxSpec bounds a spec or lock file in bytes.
const maxSpec = 4 << 20

// Spec says what goes into an image. docs/vm-image.md documents the file.
type Spec struct {
	Schema   int       `yaml:"schema"`
	Name     string    `yaml:"name"`
	Archives []Archive `yaml:"archives"`
	Kernel   Kernel    `yaml:"kernel"`
	// Stub is the package with the EFI stub that starts a unified kernel image.
	Stub     string   `yaml:"stub"`
	Packages []string `yaml:"packages"`
	// Without are dependencies that the image does without.
	Without []string `yaml:"without"`
	// Drop are patterns (path.Match, or a folder with a trailing slash) of files that packages bring and the image does without.
	Drop []string `yaml:"drop"`
	// Folders are made empty, Links are symbolic links by path, Files are written last and win over what packages bring.
	Folders []string          `yaml:"folders"`
	Links   map[string]string `yaml:"links"`
	Files   []SpecFile        `yaml:"files"`

	digest string
}

// Archive is a Debian archive and the suites to take from it.
type Archive struct {
	// Name is the archive's path on Debian's mirrors and in its snapshot service: "debian" or "debian-security".
	Name       string   `yaml:"name"`
	Suites     []string `yaml:"suites"`
	Components []string `yaml:"components"`
}

// Kernel says which kernel, and which of its modules; "{arch}" in Package stands for the architecture.
type Kernel struct {
	Package string `yaml:"package"`
	// Early modules are loaded from the initial RAM disk to find the root; Modules are kept in the root. Both bring what they depend on; a name
	// with * or ? is a pattern of module names.
	Early   []string `yaml:"early"`
	Modules []string `yaml:"modules"`
	// Cmdline is the kernel command line of the UEFI disk, by architecture.
	Cmdline map[string]string `yaml:"cmdline"`
}

// SpecFile is a small file of the image.
type SpecFile struct {
	Path    string `yaml:"path"`
	Mode    string `yaml:"mode"` // octal; 0644 when empty
	Content string `yaml:"content"`
}

// SpecError is a mistake in a spec or lock file.
type SpecError struct {
	Name string
	Err  error
}

func (e *SpecError) Error() string { return fmt.Sprintf("read %q: %v", e.Name, e.Err) }

func (e *SpecError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *SpecError) Hint() string {
	return "docs/vm-image.md describes the image spec and its lock file"
}

// ParseSpec reads and validates a spec; name stands in errors.
func ParseSpec(name string, data []byte) (*Spec, error) {
	s, err := parseSpec(data)
	if err != nil {
		return nil, &SpecError{Name: name, Err: err}
	}
	return s, nil
}

func parseSpec(data []byte) (*Spec, error) {
	if len(data) > maxSpec {
		return nil, fmt.Errorf("it has more than %d bytes", maxSpec)
	}
	var s Spec
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, err
	}
	sum := sha256.Sum256(data)
	s.digest = hex.EncodeToString(sum[:])
	return &s, s.validate()
}

// word is what may stand in an archive's name, a suite, a component, a package or a module pattern.
var word = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9+._{}*?/-]*$`)

func (s *Spec) validate() error {
	if s.Schema != SpecSchema {
		return fmt.Errorf("schema is %d; this dev reads %d", s.Schema, SpecSchema)
	}
	if s.Kernel.Package == "" || s.Stub == "" || len(s.Archives) == 0 {
		return errors.New("archives, kernel.package and stub must be set")
	}
	words := []string{s.Name, s.Kernel.Package, s.Stub}
	words = slices.Concat(words, s.Packages, s.Without, s.Kernel.Early, s.Kernel.Modules)
	for _, a := range s.Archives {
		words = append(append(append(words, a.Name), a.Suites...), a.Components...)
	}
	for _, w := range words {
		if !word.MatchString(w) || strings.Contains(w, "..") {
			return fmt.Errorf("%q is not a name", w)
		}
	}
	return s.validatePaths()
}

func (s *Spec) validatePaths() error {
	for _, d := range s.Folders {
		if !insidePath(d) {
			return fmt.Errorf("folder %q leaves the root", d)
		}
	}
	for p, target := range s.Links {
		if !insidePath(p) || target == "" {
			return fmt.Errorf("link %q leaves the root, or has no target", p)
		}
	}
	for _, f := range s.Files {
		if !insidePath(f.Path) {
			return fmt.Errorf("file %q leaves the root", f.Path)
		}
		if _, err := f.mode(); err != nil {
			return err
		}
	}
	for _, pattern := range s.Drop {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("drop pattern %q: %w", pattern, err)
		}
	}
	return nil
}

func (f SpecFile) mode() (uint32, error) {
	if f.Mode == "" {
		return 0o644, nil
	}
	m, err := strconv.ParseUint(f.Mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("file %q: mode %q is not an octal number of permissions", f.Path, f.Mode)
	}
	return uint32(m), nil
}

// insidePath tells whether p is a clean relative path below the root.
func insidePath(p string) bool {
	return p != "" && p != "." && path.Clean(p) == p && !path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsAny(p, "\x00\\")
}

// dropped tells whether the spec leaves a package's file out.
func (s *Spec) dropped(p string) bool {
	return slices.ContainsFunc(s.Drop, func(pattern string) bool {
		if dir, ok := strings.CutSuffix(pattern, "/"); ok {
			return p == dir || strings.HasPrefix(p, pattern)
		}
		match, _ := path.Match(pattern, p)
		return match
	})
}

// kernelPackage is the name of the kernel's package for an architecture.
func (s *Spec) kernelPackage(arch string) string {
	return strings.ReplaceAll(s.Kernel.Package, "{arch}", arch)
}
