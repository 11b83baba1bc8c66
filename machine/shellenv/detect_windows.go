// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package shellenv

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Detect finds the shell that the user types in: SHELL where a Unix-like one sets it, else the nearest parent process that is a shell, else cmd.
func Detect(getenv func(string) string) Shell {
	if getenv("__fish_bin_dir") != "" {
		return Fish
	}
	if shell := getenv("SHELL"); shell != "" {
		return Parse(shell)
	}
	pid := uint32(os.Getppid())
	for range 4 { // a launcher or two may stand between
		name, parent, err := processOf(pid)
		if err != nil {
			return Cmd
		}
		name = strings.ToLower(name)
		switch {
		case strings.HasPrefix(name, "powershell"), strings.HasPrefix(name, "pwsh"):
			return PowerShell
		case strings.HasPrefix(name, "cmd"):
			return Cmd
		}
		pid = parent
	}
	return Cmd
}

// processOf is a process's program and parent.
func processOf(pid uint32) (program string, parent uint32, err error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return "", 0, err
	}
	defer windows.CloseHandle(snapshot) //nolint:errcheck // a handle that was only read
	var entry windows.ProcessEntry32
	entry.Size = uint32(unsafe.Sizeof(entry))
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		if entry.ProcessID == pid {
			return windows.UTF16ToString(entry.ExeFile[:]), entry.ParentProcessID, nil
		}
	}
	return "", 0, err
}
