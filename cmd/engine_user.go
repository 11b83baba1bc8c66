// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"os"
	"os/user"
	"path/filepath"

	"github.com/seed71221737/dev/engine/config"
)

// invoker is the user who typed sudo, nil when nobody did. The engine needs root; the settings and docker contexts that go with it are
// those of the user who stands before the screen.
func (a *app) invoker() *user.User {
	if os.Geteuid() != 0 || a.getenv("SUDO_UID") == "" || a.getenv("SUDO_UID") == "0" {
		return nil
	}
	u, err := user.LookupId(a.getenv("SUDO_UID"))
	if err != nil {
		return nil // a user of another machine: the settings are root's then
	}
	return u
}

// userDir is the folder of the user's settings.
func (a *app) userDir() (string, error) {
	if u := a.invoker(); u != nil && a.getenv("DEV_HOME") == "" {
		return filepath.Join(u.HomeDir, ".dev"), nil
	}
	return config.Dir(a.getenv)
}
