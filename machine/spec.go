// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/internal/lazyregexp"
)

// Spec is what was asked of a machine: machine.yaml in its folder.
type Spec struct {
	Version int    `yaml:"version"`
	Driver  string `yaml:"driver"`
	Arch    string `yaml:"arch"` // amd64 or arm64
	// Accelerator is auto, kvm, hvf, whpx or tcg.
	Accelerator string `yaml:"accelerator,omitempty"`
	CPUs        int    `yaml:"cpus"`
	MemoryMiB   int    `yaml:"memory_mib"`
	DiskMiB     int    `yaml:"disk_mib"` // the data disk
	// MemoryReclaim says whether memory that the guest does not need is given back to the host: auto (where the host can take it), on or off.
	MemoryReclaim string `yaml:"memory_reclaim,omitempty"`
	// SleepAfter is how long nobody may have used the machine for it to fall asleep: a duration, "never", or "" for DefaultSleepAfter. SleepContainers: also
	// while containers run, which stand still then.
	SleepAfter      string `yaml:"sleep_after,omitempty"`
	SleepContainers bool   `yaml:"sleep_containers,omitempty"`
	// Image is the digest of the VM image. Previous is the one before the last upgrade, for the way back.
	Image    string `yaml:"image"`
	Previous string `yaml:"previous_image,omitempty"`
	// DataOldest is the lowest version of the data disk's layout whose images can use the disk, where that is not the first one: images that the machine
	// booted made it so. It is dev's own note, as Previous is.
	DataOldest int               `yaml:"data_oldest,omitempty"`
	Shares     []Share           `yaml:"shares,omitempty"`
	Labels     map[string]string `yaml:"labels,omitempty"`
	Engine     EngineOptions     `yaml:"engine,omitempty"`
	// Options are the driver's own settings, validated by the driver, and tls-san: further names of the engine's TCP socket, with commas between.
	Options map[string]string `yaml:"options,omitempty"`
}

// OptionTLSNames is the option with further names for the server certificate.
const OptionTLSNames = "tls-san"

// Share is a host folder in the guest, at the same path unless Guest says otherwise.
type Share struct {
	Host     string `yaml:"host"`
	Guest    string `yaml:"guest,omitempty"`
	ReadOnly bool   `yaml:"read_only,omitempty"`
	// Type is how it gets there: virtiofs, fuse (a share of our own), or "" for what is best, which is fuse.
	Type string `yaml:"type,omitempty"`
	// Cache is how much a guest believes of what it has read through virtiofs: auto (for a second; the same as ""), watched (until the host changes it), always, or never.
	Cache string `yaml:"cache,omitempty"`
}

// shareCaches are the values of Share.Cache.
var shareCaches = []string{"", hostagent.CacheAuto, hostagent.CacheWatched, hostagent.CacheAlways, hostagent.CacheNever}

// shareTypes are the values of Share.Type.
var shareTypes = []string{"", hostagent.ShareFUSE, hostagent.ShareVirtiofs}

// EngineOptions are docker-machine's --engine-… flags.
type EngineOptions struct {
	Options            []string `yaml:"options,omitempty"` // dockerd's, name=value
	Labels             []string `yaml:"labels,omitempty"`
	Env                []string `yaml:"env,omitempty"`
	RegistryMirrors    []string `yaml:"registry_mirrors,omitempty"`
	InsecureRegistries []string `yaml:"insecure_registries,omitempty"`
	StorageDriver      string   `yaml:"storage_driver,omitempty"`
}

// Bounds of sizes. The engine alone needs about 400 MiB.
const (
	maxCPUs      = 512
	minMemoryMiB = 512
	maxMemoryMiB = 4 << 20
	minDiskMiB   = 512
	maxDiskMiB   = 64 << 20
	maxSpecBytes = 1 << 20
)

// Accelerators are the values of Spec.Accelerator.
var accelerators = []string{"", "auto", "kvm", "hvf", "whpx", "tcg"}

// MemoryReclaims are the values of Spec.MemoryReclaim.
var MemoryReclaims = []string{"auto", "on", "off"}

var (
	arches    = []string{"amd64", "arm64"}
	specWords = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	hexDigest = lazyregexp.New(`^[0-9a-f]{64}$`)
	unknown   = lazyregexp.New(`field (\S+) not found in type \S+`)
)

// specVersion is the version that a spec gives, whatever else is in it; 0 where it gives none.
func specVersion(data []byte) int {
	var head struct {
		Version int `yaml:"version"`
	}
	if yaml.Unmarshal(data, &head) != nil {
		return 0
	}
	return head.Version
}

// ParseSpec reads and validates machine.yaml; name stands in errors. Unknown fields are errors with their line.
func ParseSpec(name string, data []byte) (Spec, error) {
	if len(data) > maxSpecBytes {
		return Spec{}, &SpecError{Name: name, Problems: []string{"it is too large to be one"}}
	}
	if v := specVersion(data); v > SpecVersion {
		return Spec{}, &SpecError{Name: name, Problems: []string{fmt.Sprintf("its version is %d and this dev reads up to %d: use a newer dev", v, SpecVersion)}}
	}
	var s Spec
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(&s)
	if errors.Is(err, io.EOF) {
		return Spec{}, &SpecError{Name: name, Problems: []string{"it is empty"}}
	}
	if err != nil {
		return Spec{}, &SpecError{Name: name, Problems: yamlProblems(err)}
	}
	if problems := s.problems(); len(problems) > 0 {
		return Spec{}, &SpecError{Name: name, Problems: problems}
	}
	return s, nil
}

// yamlProblems says what the decoder found in our own words.
func yamlProblems(err error) []string {
	var typeError *yaml.TypeError
	if !errors.As(err, &typeError) {
		return []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	var list []string
	for _, e := range typeError.Errors {
		list = append(list, unknown.Get().ReplaceAllString(e, `unknown field "$1"`))
	}
	return list
}

// Validate says all that is wrong with a spec.
func (s Spec) Validate(name string) error {
	if problems := s.problems(); len(problems) > 0 {
		return &SpecError{Name: name, Problems: problems}
	}
	return nil
}

// problems looks at each field; a nil answer means that the spec can be used.
func (s Spec) problems() []string {
	var list []string
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	refuse(s.Version < 1 || s.Version > SpecVersion, "version is %d: this dev knows 1 to %d", s.Version, SpecVersion)
	refuse(!specWords.MatchString(s.Driver), "driver %q is not a name", s.Driver)
	refuse(!slices.Contains(arches, s.Arch), "arch %q is not one of %s", s.Arch, strings.Join(arches, ", "))
	refuse(!slices.Contains(accelerators, s.Accelerator), "accelerator %q is not one of %s", s.Accelerator, strings.Join(accelerators[1:], ", "))
	refuse(s.CPUs < 1 || s.CPUs > maxCPUs, "cpus is %d: give 1 to %d", s.CPUs, maxCPUs)
	refuse(s.MemoryMiB < minMemoryMiB || s.MemoryMiB > maxMemoryMiB, "memory_mib is %d: give %d to %d", s.MemoryMiB, minMemoryMiB, maxMemoryMiB)
	refuse(s.MemoryReclaim != "" && !slices.Contains(MemoryReclaims, s.MemoryReclaim), "memory_reclaim %q is not one of %s", s.MemoryReclaim, strings.Join(MemoryReclaims, ", "))
	if _, err := ParseSleepAfter(s.SleepAfter); err != nil {
		list = append(list, "sleep_after "+err.Error())
	}
	refuse(s.DiskMiB < minDiskMiB || s.DiskMiB > maxDiskMiB, "disk_mib is %d: give %d to %d", s.DiskMiB, minDiskMiB, maxDiskMiB)
	refuse(!hexDigest.MatchString(s.Image), "image %q is not a digest", s.Image)
	refuse(s.DataOldest < 0, "data_oldest is %d: it cannot be negative", s.DataOldest)
	refuse(s.Previous != "" && !hexDigest.MatchString(s.Previous), "previous_image %q is not a digest", s.Previous)
	list = append(list, shareProblems(s.Shares)...)
	if _, err := s.Engine.Config(); err != nil {
		list = append(list, err.Error())
	}
	return list
}

// shareProblems looks at the shares together: two at one place hide each other.
func shareProblems(shares []Share) []string {
	var list []string
	seen := map[string]bool{}
	for _, s := range shares {
		guest, err := s.GuestPath()
		switch {
		case err != nil:
			list = append(list, err.Error())
			continue
		case !filepath.IsAbs(s.Host):
			list = append(list, fmt.Sprintf("share %q is not an absolute path", s.Host))
		case !path.IsAbs(guest) || path.Clean(guest) != guest || guest == "/":
			list = append(list, fmt.Sprintf("share %q would be at %q in the machine, which must be an absolute path below the root", s.Host, guest))
		case !slices.Contains(shareTypes, s.Type):
			list = append(list, fmt.Sprintf("share %q is of type %q, which is not one of %s", s.Host, s.Type, strings.Join(shareTypes[1:], ", ")))
		case !slices.Contains(shareCaches, s.Cache):
			list = append(list, fmt.Sprintf("share %q has cache %q, which is not one of %s", s.Host, s.Cache, strings.Join(shareCaches[1:], ", ")))
		case s.Cache != "" && s.Type != hostagent.ShareVirtiofs:
			list = append(list, fmt.Sprintf("share %q has a cache to choose, which only type %s has", s.Host, hostagent.ShareVirtiofs))
		case seen[guest]:
			list = append(list, fmt.Sprintf("two shares would be at %q in the machine", guest))
		}
		seen[guest] = true
	}
	return list
}

// ShareDevices is how many shares are devices of the VM.
func (s Spec) ShareDevices() int {
	n := 0
	for _, share := range s.Shares {
		if share.Type == hostagent.ShareVirtiofs {
			n++
		}
	}
	return n
}

// GuestPath is where the share is in the guest.
func (s Share) GuestPath() (string, error) {
	if s.Guest != "" {
		return s.Guest, nil
	}
	return hostagent.GuestPath(runtime.GOOS, s.Host)
}

// ReclaimsMemory says whether memory is taken from the guest on a host of such a system. With auto only where the host gets it: macOS and Windows keep what
// a hypervisor lets go of, and the guest would be poorer for nothing.
func (s Spec) ReclaimsMemory(goos string) bool {
	return s.MemoryReclaim == "on" || s.MemoryReclaim != "off" && goos == "linux"
}

// DefaultSleepAfter is when an unused machine falls asleep. Waking takes about a second, so that it could be sooner; but each sleep writes the memory in use to
// the disk, and who pauses for a coffee should not pay for that.
const DefaultSleepAfter = 15 * time.Minute

// minSleepAfter keeps a machine from doing nothing but falling asleep and waking.
const minSleepAfter = 10 * time.Second

// ParseSleepAfter reads Spec.SleepAfter: 0 means never.
func ParseSleepAfter(text string) (time.Duration, error) {
	switch text {
	case "":
		return DefaultSleepAfter, nil
	case "never", "0":
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 15m, or never", text)
	}
	if d < minSleepAfter && d != 0 {
		return 0, fmt.Errorf("%q is too short: give %s at least, or never", text, minSleepAfter)
	}
	return d, nil
}

// clone is a copy that shares nothing with s.
func (s Spec) clone() Spec {
	s.Shares, s.Labels, s.Options = slices.Clone(s.Shares), maps.Clone(s.Labels), maps.Clone(s.Options)
	e := &s.Engine
	for _, list := range []*[]string{&e.Options, &e.Labels, &e.Env, &e.RegistryMirrors, &e.InsecureRegistries} {
		*list = slices.Clone(*list)
	}
	return s
}

// readSpec reads the spec of the machine in dir.
func readSpec(dir Dir) (Spec, error) {
	data, err := os.ReadFile(dir.Spec())
	if errors.Is(err, fs.ErrNotExist) {
		return Spec{}, fmt.Errorf("its %s is missing", filepath.Base(dir.Spec()))
	}
	if err != nil {
		return Spec{}, fmt.Errorf("read the spec: %w", err)
	}
	return ParseSpec(dir.Spec(), data)
}

// writeSpec replaces machine.yaml as a whole.
func writeSpec(dir Dir, s Spec) error {
	data, err := encodeSpec(s)
	if err != nil {
		return fmt.Errorf("write the spec: %w", err)
	}
	if err := atomicfile.Write(dir.Spec(), data, 0o600); err != nil {
		return fmt.Errorf("write the spec: %w", err)
	}
	return nil
}
