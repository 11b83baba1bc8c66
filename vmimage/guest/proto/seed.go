// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package proto

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// SeedSchema is the newest version of the seed that this package writes, and reads besides all before it.
const SeedSchema = 1

// Seed is what a machine is told before it boots. It comes on a small raw disk of its own (EncodeSeed), which every hypervisor can attach.
type Seed struct {
	Schema    int    `json:"schema"`
	Hostname  string `json:"hostname,omitempty"`
	MachineID string `json:"machine_id,omitempty"` // 32 hexadecimal digits
	// HostKey is the agent's private key in PEM; AuthorizedKeys may log in, in the format of authorized_keys.
	HostKey        string   `json:"host_key"`
	AuthorizedKeys []string `json:"authorized_keys"`
	// Time is the host's clock when the seed was written; the guest never starts before it.
	Time time.Time `json:"time"`
	// Entropy is mixed into the kernel's pool.
	Entropy []byte   `json:"entropy,omitempty"`
	Network *Network `json:"network,omitempty"` // nil: DHCP
	// Proxy are environment variables for the engine and for logins: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
	Proxy map[string]string `json:"proxy,omitempty"`
	// Certificates are further certificate authorities in PEM.
	Certificates string `json:"certificates,omitempty"`
	// DataDisk says that the machine has a data disk: it is waited for, and without it the engine is not started. Otherwise a machine without one keeps
	// its data in memory.
	DataDisk bool `json:"data_disk,omitempty"`
	// SwapMiB is the size of a swap file on the data disk, ZramMiB of compressed swap in memory; 0 for none.
	SwapMiB int `json:"swap_mib,omitempty"`
	ZramMiB int `json:"zram_mib,omitempty"`
	// Sysctl are further kernel settings, by their path below /proc/sys with dots or slashes.
	Sysctl map[string]string `json:"sysctl,omitempty"`
	// LinkSecret is what the host shows at FastPort, new for each start (FastSecretSize bytes); without it there is no fast link.
	LinkSecret []byte  `json:"link_secret,omitempty"`
	Mounts     []Mount `json:"mounts,omitempty"`
	// Shares are where the host is about to mount shares over the fast link: the engine waits for them, as containers that start with it may use them.
	Shares []string `json:"shares,omitempty"`
	// Emulators run programs of other architectures: paths in the guest, mostly below a share, by architecture (amd64, arm64).
	Emulators map[string]string `json:"emulators,omitempty"`
	// Engine are settings merged into dockerd's configuration file.
	Engine map[string]json.RawMessage `json:"engine,omitempty"`
	// Maintenance is work on the data disk to do instead of serving anybody; the machine powers off after it.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
}

// Network is a fixed network configuration.
type Network struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	DNS     []netip.Addr `json:"dns,omitempty"`
	Search  []string     `json:"search,omitempty"`
	MTU     int          `json:"mtu,omitempty"`
}

// Mount is a file system to mount in the guest: a virtiofs tag, say.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Type     string `json:"type"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Options  string `json:"options,omitempty"`
}

// Layout of a seed disk: a mark, the length of the JSON that follows, its SHA-256, the JSON, and zeros up to a whole mebibyte, because some
// hypervisors refuse smaller disks.
const (
	seedMark  = "DEV-SEED"
	seedMax   = 8 << 20
	seedRound = 1 << 20
)

// ErrNoSeed says that a disk is no seed disk.
var ErrNoSeed = errors.New("not a seed disk")

// EncodeSeed renders a seed as the contents of its disk.
func EncodeSeed(s Seed) ([]byte, error) {
	s.Schema = SeedSchema
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("encode seed: %w", err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode seed: %w", err)
	}
	if len(body) > seedMax {
		return nil, fmt.Errorf("encode seed: it has %d bytes, %d are the most", len(body), seedMax)
	}
	return frame(seedMark, body), nil
}

// frame lays out a disk.
func frame(mark string, body []byte) []byte {
	sum := sha256.Sum256(body)
	var b bytes.Buffer
	b.WriteString(mark)
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(body))))
	b.Write(sum[:])
	b.Write(body)
	b.Write(make([]byte, (seedRound-b.Len()%seedRound)%seedRound))
	return b.Bytes()
}

// unframe reads a disk's body; ok is false where it is not a disk of this kind.
func unframe(r io.ReaderAt, mark string) (body []byte, ok bool, err error) {
	head := make([]byte, len(mark)+4+sha256.Size)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[:len(mark)]) != mark {
		return nil, false, nil //nolint:nilerr // too short to be one
	}
	n := binary.LittleEndian.Uint32(head[len(mark):])
	if n > seedMax {
		return nil, true, fmt.Errorf("it claims %d bytes, %d are the most", n, seedMax)
	}
	body = make([]byte, n)
	if _, err := r.ReadAt(body, int64(len(head))); err != nil {
		return nil, true, err
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], head[len(mark)+4:]) {
		return nil, true, errors.New("its digest is wrong")
	}
	return body, true, nil
}

// DecodeSeed reads a seed disk; ErrNoSeed when it is none.
func DecodeSeed(r io.ReaderAt) (*Seed, error) {
	body, ok, err := unframe(r, seedMark)
	if !ok {
		return nil, ErrNoSeed
	}
	if err != nil {
		return nil, fmt.Errorf("read seed: %w", err)
	}
	var s Seed
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("read seed: %w", err)
	}
	if s.Schema < 1 || s.Schema > SeedSchema {
		return nil, fmt.Errorf("read seed: its schema is %d and this image reads %d: upgrade the machine's image", s.Schema, SeedSchema)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("read seed: %w", err)
	}
	return &s, nil
}

var (
	hostname  = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	machineID = lazyregexp.New(`^[0-9a-f]{32}$`)
	sysctl    = lazyregexp.New(`^[a-z0-9_]+([./][A-Za-z0-9_-]+)+$`)
)

func (s *Seed) validate() error {
	switch {
	case s.Hostname != "" && !hostname.MatchString(s.Hostname):
		return fmt.Errorf("host name %q is not one", s.Hostname)
	case s.MachineID != "" && !machineID.MatchString(s.MachineID):
		return fmt.Errorf("machine id %q is not 32 hexadecimal digits", s.MachineID)
	case s.SwapMiB < 0 || s.ZramMiB < 0:
		return errors.New("swap sizes are negative")
	case s.Maintenance != nil:
		if err := s.Maintenance.validate(); err != nil {
			return err
		}
	}
	for name := range s.Sysctl {
		if !sysctl.MatchString(name) {
			return fmt.Errorf("kernel setting %q is not a name", name)
		}
	}
	for _, m := range s.Mounts {
		if err := m.Validate(); err != nil {
			return err
		}
	}
	for arch, p := range s.Emulators {
		if !path.IsAbs(p) || len(p) > maxEmulator || strings.ContainsAny(p, ":\n") {
			return fmt.Errorf("emulator %q for %q is not an absolute path of at most %d characters without colons", p, arch, maxEmulator)
		}
	}
	return nil
}

// maxEmulator is the kernel's bound on an interpreter's path in bytes.
const maxEmulator = 127

// mountTypes are the file systems that a host may ask for.
var mountTypes = map[string]bool{"virtiofs": true, "nfs": true, "nfs4": true, "cifs": true, "ext4": true, "xfs": true, "btrfs": true, "tmpfs": true}

// Validate refuses a mount that would hide the system.
func (m Mount) Validate() error {
	if !mountTypes[m.Type] {
		return fmt.Errorf("mount of %q: file system %q is not known", m.Source, m.Type)
	}
	return m.ValidateTarget()
}

// ValidateTarget refuses a place that would hide the system.
func (m Mount) ValidateTarget() error {
	if m.Source == "" || !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
		return fmt.Errorf("mount of %q at %q: the target must be a clean absolute path below the root", m.Source, m.Target)
	}
	return nil
}

// MountOwners in the Options of a share of our own (FastShare) says that the host keeps owners and modes as they are set in the machine.
const MountOwners = "owners"
