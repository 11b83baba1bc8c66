// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"
	"strings"

	"github.com/seed71221737/dev/internal/lazyregexp"
)

// NameError says why a name cannot be a machine's.
type NameError struct{ Name, Why string }

func (e *NameError) Error() string {
	return fmt.Sprintf("use %q as a machine's name: %s", e.Name, e.Why)
}

// Hint names the next step.
func (e *NameError) Hint() string {
	return "use letters, digits, dots and hyphens, such as \"default\""
}

var (
	validName = lazyregexp.New(`^[0-9A-Za-z][0-9A-Za-z.-]*$`)
	// deviceName is what Windows keeps for devices, with any ending.
	deviceName = lazyregexp.New(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)
)

// maxName is the longest name: a host name has no more.
const maxName = 63

// CheckName says whether name can be a machine's on every system.
func CheckName(name string) error {
	switch {
	case name == "":
		return &NameError{Name: name, Why: "it is empty"}
	case len(name) > maxName:
		return &NameError{Name: name, Why: fmt.Sprintf("it has %d characters and %d are the most", len(name), maxName)}
	case !validName.MatchString(name):
		return &NameError{Name: name, Why: "only letters, digits, dots and hyphens can be in it, the first being a letter or digit"}
	case strings.HasSuffix(name, "."):
		return &NameError{Name: name, Why: "it ends in a dot"}
	case deviceName.MatchString(name):
		return &NameError{Name: name, Why: "Windows keeps it for a device"}
	}
	return nil
}

// hostname is the guest's host name: a machine's name without what host names do not have.
func hostname(name string) string {
	return strings.Trim(strings.ReplaceAll(name, ".", "-"), "-")
}

// Hostname is the machine's host name in the guest.
func (m *Machine) Hostname() string { return hostname(m.Name) }
