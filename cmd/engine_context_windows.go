// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"errors"
	"os/exec"
	"os/user"
)

// becomeUser fails: Windows has no sudo of this kind.
func becomeUser(*exec.Cmd, *user.User) error { return errors.ErrUnsupported }
