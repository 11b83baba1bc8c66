// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/internal/lazyregexp"
	"github.com/seed71221737/dev/vmimage/deb"
)

// LockSchema is the version of the lock file that this package reads and writes.
const LockSchema = 1

// Arches are the architectures that images are made for, by their name in Debian and in Go.
var Arches = []string{"amd64", "arm64"}

// Lock pins the packages of an image.
type Lock struct {
	Schema int `json:"schema"`
	// Spec is the SHA-256 of the spec that was resolved.
	Spec string `json:"spec"`
	// Timestamp is a moment at which the archive held all the packages: the address in Debian's snapshot service, and the time of every file in
	// the image.
	Timestamp time.Time `json:"timestamp"`
	// Releases say whose signature stood over the packages.
	Releases []LockedRelease            `json:"releases"`
	Packages map[string][]LockedPackage `json:"packages"` // by architecture, sorted by name
}

// LockedRelease is a suite's InRelease file as it was when the packages were resolved.
type LockedRelease struct {
	Archive  string    `json:"archive"`
	Suite    string    `json:"suite"`
	Date     time.Time `json:"date"`
	SignedBy string    `json:"signed_by"`
	SHA256   string    `json:"sha256"`
}

// LockedPackage is one package.
type LockedPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`
	// Role is "kernel", "stub" or empty for the root file system.
	Role     string `json:"role,omitempty"`
	Archive  string `json:"archive"`
	Filename string `json:"filename"`
	Size     int64  `json:"size"` // bytes
	SHA256   string `json:"sha256"`
}

// Roles of packages that do not go into the root as they are.
const (
	roleKernel = "kernel"
	roleStub   = "stub"
)

// ParseLock reads and validates a lock file; name stands in errors.
func ParseLock(name string, data []byte) (*Lock, error) {
	l, err := parseLock(data)
	if err != nil {
		return nil, &SpecError{Name: name, Err: err}
	}
	return l, nil
}

func parseLock(data []byte) (*Lock, error) {
	if len(data) > maxSpec {
		return nil, fmt.Errorf("it has more than %d bytes", maxSpec)
	}
	var l Lock
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, err
	}
	if l.Schema != LockSchema {
		return nil, fmt.Errorf("schema is %d; this dev reads %d", l.Schema, LockSchema)
	}
	if l.Timestamp.IsZero() || l.Timestamp.Year() > 2100 {
		return nil, errors.New("timestamp is absent or absurd")
	}
	for arch, list := range l.Packages {
		for _, p := range list {
			if err := p.validate(); err != nil {
				return nil, fmt.Errorf("architecture %q, package %q: %w", arch, p.Name, err)
			}
		}
	}
	return &l, nil
}

var hexDigest = lazyregexp.New(`^[0-9a-f]{64}$`)

func (p LockedPackage) validate() error {
	switch {
	case !word.MatchString(p.Name) || !word.MatchString(p.Archive):
		return errors.New("name or archive is not a name")
	case !hexDigest.MatchString(p.SHA256):
		return fmt.Errorf("sha256 %q is not a digest", p.SHA256)
	case p.Size <= 0 || p.Size > 1<<32:
		return fmt.Errorf("size %d is absurd", p.Size)
	case !deb.ValidFilename(p.Filename):
		return fmt.Errorf("filename %q leaves the archive", p.Filename)
	}
	return nil
}

// Encode returns the lock as a file.
func (l *Lock) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode lock: %w", err)
	}
	return append(data, '\n'), nil
}

// StaleLockError says that a lock was made for another spec.
type StaleLockError struct{ Why string }

func (e *StaleLockError) Error() string { return "use the lock file: " + e.Why }

// Hint names the next step.
func (e *StaleLockError) Hint() string { return "resolve anew with --refresh" }

// check tells whether the lock is good for a spec and architecture.
func (l *Lock) check(s *Spec, arch string) error {
	if l.Spec != s.digest {
		return &StaleLockError{Why: "it was made for another image spec"}
	}
	if len(l.Packages[arch]) == 0 {
		return &StaleLockError{Why: fmt.Sprintf("it has no packages for architecture %q", arch)}
	}
	return nil
}

// Write writes the lock to a file.
func (l *Lock) Write(name string) error {
	data, err := l.Encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(name, data, 0o644); err != nil {
		return fmt.Errorf("write lock file: %w", err)
	}
	return nil
}
