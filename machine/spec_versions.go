// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"

	"gopkg.in/yaml.v3"
)

// SpecVersion is the newest version of machine.yaml; older ones are read, newer ones refused. A spec is written in the oldest version that has all that is
// in it, so that an older dev can go on with it where that is possible.
//
// Version 2 is all that version 1 is not: fields are added to it until a release has it, and then to the next.
const SpecVersion = 2

// specV1 is version 1. It is as it was released, and does not change any more.
type specV1 struct {
	Version     int    `yaml:"version"`
	Driver      string `yaml:"driver"`
	Arch        string `yaml:"arch"`
	Accelerator string `yaml:"accelerator,omitempty"`
	CPUs        int    `yaml:"cpus"`
	MemoryMiB   int    `yaml:"memory_mib"`
	DiskMiB     int    `yaml:"disk_mib"`
	Image       string `yaml:"image"`
	Previous    string `yaml:"previous_image,omitempty"`
	Shares      []struct {
		Host     string `yaml:"host"`
		Guest    string `yaml:"guest,omitempty"`
		ReadOnly bool   `yaml:"read_only,omitempty"`
	} `yaml:"shares,omitempty"`
	Labels map[string]string `yaml:"labels,omitempty"`
	Engine struct {
		Options            []string `yaml:"options,omitempty"`
		Labels             []string `yaml:"labels,omitempty"`
		Env                []string `yaml:"env,omitempty"`
		RegistryMirrors    []string `yaml:"registry_mirrors,omitempty"`
		InsecureRegistries []string `yaml:"insecure_registries,omitempty"`
		StorageDriver      string   `yaml:"storage_driver,omitempty"`
	} `yaml:"engine,omitempty"`
	Options map[string]string `yaml:"options,omitempty"`
}

// encodeSpec is machine.yaml in the oldest version that will do.
func encodeSpec(s Spec) ([]byte, error) {
	s.Version = 1
	data, err := yaml.Marshal(s)
	if err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var old specV1
	if dec.Decode(&old) == nil {
		return data, nil
	}
	s.Version = SpecVersion
	return yaml.Marshal(s)
}
