// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// systemCertificates asks the keychain of the administrator's own authorities; Apple's are in another one.
func systemCertificates() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/bin/security", "find-certificate", "-a", "-p", "/Library/Keychains/System.keychain").Output()
	if err != nil {
		return "", fmt.Errorf("read the system's keychain: %w", err)
	}
	return string(out), nil
}
