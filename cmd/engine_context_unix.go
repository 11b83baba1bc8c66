// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package cmd

import (
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// becomeUser makes cmd run as another user.
func becomeUser(cmd *exec.Cmd, u *user.User) error {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("become user %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("become user %s: %w", u.Username, err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return nil
}
