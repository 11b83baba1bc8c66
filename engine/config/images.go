// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package config

// MachineImages are the settings of images for virtual machines.
type MachineImages struct {
	// Mirrors of Debian's archive, for building images: URLs below which debian/ and debian-security/ lie, tried in order.
	Mirrors []string `yaml:"mirrors"`
}

func (m *MachineImages) validate(at position) error {
	for _, u := range m.Mirrors {
		if !isPlainURL(u) {
			return at.errorf("machine-images.mirrors", "%q is not a URL such as https://mirror.example.com", u)
		}
	}
	return nil
}
