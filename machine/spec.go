// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

// SpecVersion is the version of machine.yaml that this program writes; it reads older ones and refuses newer ones.
const SpecVersion = 1

// Spec is what was asked of a machine: machine.yaml in its folder.
type Spec struct {
	Version int    `yaml:"version"`
	Driver  string `yaml:"driver"`
	Arch    string `yaml:"arch"` // amd64 or arm64
	// Accelerator is auto, kvm, hvf, whpx or tcg.
	Accelerator string `yaml:"accelerator,omitempty"`
	CPUs        int    `yaml:"cpus"`
	MemoryMiB   int    `yaml:"memory_mib"`
	DiskMiB     int    `yaml:"disk_mib"` // the data disk; it only grows
	// Image is the digest of the VM image. Previous is the one before the last upgrade, for the way back.
	Image    string            `yaml:"image"`
	Previous string            `yaml:"previous_image,omitempty"`
	Shares   []Share           `yaml:"shares,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty"`
	Engine   EngineOptions     `yaml:"engine,omitempty"`
	// Options are the driver's own settings, validated by the driver.
	Options map[string]string `yaml:"options,omitempty"`
}

// Share is a host folder in the guest, at the same path unless Guest says otherwise.
type Share struct {
	Host     string `yaml:"host"`
	Guest    string `yaml:"guest,omitempty"`
	ReadOnly bool   `yaml:"read_only,omitempty"`
}

// EngineOptions are docker-machine's --engine-… flags.
type EngineOptions struct {
	Options            []string `yaml:"options,omitempty"` // dockerd's, name=value
	Labels             []string `yaml:"labels,omitempty"`
	Env                []string `yaml:"env,omitempty"`
	RegistryMirrors    []string `yaml:"registry_mirrors,omitempty"`
	InsecureRegistries []string `yaml:"insecure_registries,omitempty"`
	StorageDriver      string   `yaml:"storage_driver,omitempty"`
}
