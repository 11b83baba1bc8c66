// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package engine

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// socketOwner says whom a socket belongs to: " (the socket belongs to root:docker, mode 0660)".
func socketOwner(path string) string {
	owner, group, mode := statOwner(path)
	if owner == "" {
		return ""
	}
	return fmt.Sprintf(" (the socket belongs to %s:%s, mode %04o)", owner, group, mode)
}

// permissionHint says how to be let in.
func permissionHint(path string) string {
	if _, group, mode := statOwner(path); group != "" && group != "root" && mode&0o060 == 0o060 {
		return fmt.Sprintf("join the group and log in again: sudo usermod -aG %s $USER; or run the command with sudo", group)
	}
	return "run the command with sudo"
}

func statOwner(path string) (owner, group string, mode os.FileMode) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", "", 0
	}
	owner, group = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return owner, group, info.Mode().Perm()
}
