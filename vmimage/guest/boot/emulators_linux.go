// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const binfmtFolder = "/proc/sys/fs/binfmt_misc"

// registerEmulators lets programs of other architectures run with the interpreters that the host provides, which its shares hold.
func registerEmulators(emulators map[string]string) error {
	if err := unix.Mount("binfmt_misc", binfmtFolder, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount %q: %w", binfmtFolder, err)
	}
	var errs []error
	for arch, interpreter := range emulators {
		rule, err := emulatorRule(arch, interpreter)
		if err == nil {
			err = os.WriteFile(binfmtFolder+"/register", []byte(rule), 0o200)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("register %q for programs of %q: %w", interpreter, arch, err))
		}
	}
	return errors.Join(errs...)
}
