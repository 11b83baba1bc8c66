// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import "fmt"

// elfMagic is how the kernel tells programs of an architecture: the head of their file, and which bits of it count.
var elfMagic = map[string]struct{ head, mask string }{
	"amd64": {
		`\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00`,
		`\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`,
	},
	"arm64": {
		`\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00`,
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`,
	},
}

// emulatorRule is what the kernel's binfmt_misc is told to run an architecture's programs with an interpreter. Flags: the kernel opens the interpreter now,
// so that containers need not have it (F), and gives it the rights of the program it runs (C).
func emulatorRule(arch, interpreter string) (string, error) {
	m, ok := elfMagic[arch]
	if !ok {
		return "", fmt.Errorf("run programs of %q: an emulator can be set for amd64 and arm64", arch)
	}
	return fmt.Sprintf(":dev-%s:M::%s:%s:%s:CF", arch, m.head, m.mask, interpreter), nil
}
