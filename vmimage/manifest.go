// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ManifestSchema is the version of the manifest that this package reads and writes.
const ManifestSchema = 1

// Names of an image's files.
const (
	ManifestName = "manifest.json"
	KernelName   = "kernel"
	InitrdName   = "initrd"
	RootName     = "rootfs"
	StubName     = "stub.efi"
	DiskName     = "disk.img"
	SBOMName     = "sbom.cdx.json"
)

// Manifest lists what an image consists of. The image's digest is the SHA-256 of its manifest file.
type Manifest struct {
	Schema int       `json:"schema"`
	Name   string    `json:"name"`
	Arch   string    `json:"arch"`
	Time   time.Time `json:"time"`
	// Kernel and Engine are versions: uname -r, and the engine bundle's.
	Kernel string `json:"kernel"`
	Engine string `json:"engine"`
	// GuestProtocol is the version of the control protocol that the guest speaks.
	GuestProtocol int `json:"guest_protocol"`
	// DataSchema is the newest version of the data disk's layout that the image knows, DataOldest the lowest one whose images can use the disk after this
	// image did. Images of before these were written know version 1: see DataLayout.
	DataSchema int `json:"data_schema,omitempty"`
	DataOldest int `json:"data_oldest,omitempty"`
	// RootUUID is the root file system's identity; the guest finds its root by it.
	RootUUID string `json:"root_uuid"`
	// Cmdline is the kernel's command line on the UEFI disk; with a direct kernel boot the host may add to it.
	Cmdline string `json:"cmdline"`
	// Files are sorted by name. Disk is made of the others and need not be distributed.
	Files      []ImageFile `json:"files"`
	Disk       *ImageFile  `json:"disk,omitempty"`
	Components []Component `json:"components"`
}

// ImageFile is one file of an image.
type ImageFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Component is a piece of software in an image.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Origin is "debian", "engine" or "dev".
	Origin   string   `json:"origin"`
	Source   string   `json:"source,omitempty"` // Debian source package or Go module
	SHA256   string   `json:"sha256,omitempty"`
	Licences []string `json:"licences,omitempty"`
}

// imageFiles are the files that every image has besides its manifest.
var imageFiles = []string{InitrdName, KernelName, RootName, SBOMName, StubName}

// ParseManifest reads and validates a manifest; name stands in errors.
func ParseManifest(name string, data []byte) (*Manifest, error) {
	m, err := parseManifest(data)
	if err != nil {
		return nil, &DamagedError{Name: name, Err: err}
	}
	return m, nil
}

func parseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxSpec {
		return nil, fmt.Errorf("it has more than %d bytes", maxSpec)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if m.Schema != ManifestSchema {
		return nil, fmt.Errorf("schema is %d; this dev reads %d", m.Schema, ManifestSchema)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
		if !hexDigest.MatchString(f.SHA256) || f.Size < 0 {
			return nil, fmt.Errorf("file %q has no usable digest or size", f.Name)
		}
	}
	if !slices.Equal(names, imageFiles) {
		return nil, fmt.Errorf("it lists files %q, an image has %q", names, imageFiles)
	}
	if !slices.Contains(Arches, m.Arch) {
		return nil, fmt.Errorf("architecture %q is unknown", m.Arch)
	}
	if len(m.RootUUID) != 36 {
		return nil, errors.New("root_uuid is malformed")
	}
	return &m, nil
}

// File returns the entry of that name; every name of an image's files is there.
func (m *Manifest) File(name string) ImageFile {
	for _, f := range m.Files {
		if f.Name == name {
			return f
		}
	}
	return ImageFile{}
}

// DataLayout are DataSchema and DataOldest, also of images that do not say them.
func (m *Manifest) DataLayout() (schema, oldest int) {
	return max(m.DataSchema, 1), max(m.DataOldest, 1)
}

func (m *Manifest) encode() ([]byte, error) { return encodeJSON(m) }

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b.Bytes(), nil
}

// describeFile measures a file of an image.
func describeFile(dir, name string) (ImageFile, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return ImageFile{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return ImageFile{}, fmt.Errorf("read %q: %w", name, err)
	}
	return ImageFile{Name: name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// DamagedError says that an image is not what its manifest says.
type DamagedError struct {
	Name string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("verify image %q: %v", e.Name, e.Err) }

func (e *DamagedError) Unwrap() error { return e.Err }

// Hint names the next step.
func (e *DamagedError) Hint() string {
	return "remove the image with `dev machine image prune --damaged`, then pull or build it again"
}

// Verify compares every file of the image in dir with its manifest.
func Verify(dir string) (*Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return nil, &DamagedError{Name: dir, Err: err}
	}
	m, err := ParseManifest(dir, data)
	if err != nil {
		return nil, err
	}
	files := m.Files
	if m.Disk != nil {
		if _, err := os.Stat(filepath.Join(dir, DiskName)); err == nil { // it may be absent: it can be made of the others
			files = append(slices.Clone(files), *m.Disk)
		}
	}
	for _, want := range files {
		got, err := describeFile(dir, want.Name)
		if err != nil {
			return nil, &DamagedError{Name: dir, Err: err}
		}
		if got != want {
			return nil, &DamagedError{Name: dir, Err: fmt.Errorf("file %q has %d bytes and SHA-256 %s, the manifest says %d and %s", want.Name, got.Size, got.SHA256, want.Size, want.SHA256)}
		}
	}
	return m, nil
}

// The part of CycloneDX 1.6 that describes an image's components.
type (
	cycloneBOM struct {
		Format     string             `json:"bomFormat"`
		Spec       string             `json:"specVersion"`
		Version    int                `json:"version"`
		Metadata   cycloneMetadata    `json:"metadata"`
		Components []cycloneComponent `json:"components"`
	}
	cycloneMetadata struct {
		Timestamp string           `json:"timestamp"`
		Component cycloneComponent `json:"component"`
	}
	cycloneComponent struct {
		Type     string           `json:"type"`
		Name     string           `json:"name"`
		Version  string           `json:"version"`
		PURL     string           `json:"purl,omitempty"`
		Hashes   []cycloneHash    `json:"hashes,omitempty"`
		Licenses []cycloneLicence `json:"licenses,omitempty"`
	}
	cycloneHash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	cycloneLicence struct {
		License struct {
			Name string `json:"name"`
		} `json:"license"`
	}
)

// sbom renders the components as a CycloneDX document.
func sbom(m *Manifest) ([]byte, error) {
	b := cycloneBOM{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: cycloneMetadata{
		Timestamp: m.Time.UTC().Format(time.RFC3339),
		Component: cycloneComponent{Type: "operating-system", Name: m.Name + "-" + m.Arch, Version: m.Time.UTC().Format("20060102")},
	}}
	for _, c := range m.Components {
		cc := cycloneComponent{Type: "application", Name: c.Name, Version: c.Version}
		switch c.Origin {
		case "debian":
			cc.PURL = fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", c.Name, c.Version, m.Arch)
		case "engine":
			cc.PURL = fmt.Sprintf("pkg:golang/%s@%s", c.Source, c.Version)
		}
		if c.SHA256 != "" {
			cc.Hashes = []cycloneHash{{Alg: "SHA-256", Content: c.SHA256}}
		}
		for _, l := range c.Licences {
			var cl cycloneLicence
			cl.License.Name = l
			cc.Licenses = append(cc.Licenses, cl)
		}
		b.Components = append(b.Components, cc)
	}
	return encodeJSON(b)
}
