// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"
	"testing"
)

func TestMachineImages(t *testing.T) {
	c, err := Parse("f", []byte("machine-images:\n  mirrors: [https://one.example, http://two.example/mirror]\n"))
	if err != nil || !slices.Equal(c.MachineImages.Mirrors, []string{"https://one.example", "http://two.example/mirror"}) {
		t.Errorf("got %q, %v", c.MachineImages.Mirrors, err)
	}
	for _, bad := range []string{"mirrors: [one.example]", "mirrors: [ftp://one.example]", "mirrors: ['https://u:p@one.example']", "mirror: []"} {
		if _, err := Parse("f", []byte("machine-images: {"+bad+"}\n")); err == nil || !strings.Contains(err.Error(), "machine-images") {
			t.Errorf("%s: %v, want an error that names the key", bad, err)
		}
	}
}
