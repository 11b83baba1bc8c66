// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package process

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

func list() ([]int, error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(snapshot) //nolint:errcheck // nothing to lose
	var pids []int
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		pids = append(pids, int(entry.ProcessID))
	}
	return pids, nil
}

// arguments asks the kernel for a process's command line and splits it as programs do.
func arguments(pid int) []string {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return nil
	}
	defer windows.CloseHandle(process) //nolint:errcheck // nothing to lose
	var code uint32
	const stillActive = 259
	if err := windows.GetExitCodeProcess(process, &code); err != nil || code != stillActive {
		return nil
	}
	buf := make([]byte, 1<<16+64) // a command line has at most 32767 characters
	var n uint32
	err = windows.NtQueryInformationProcess(process, windows.ProcessCommandLineInformation, unsafe.Pointer(&buf[0]), uint32(len(buf)), &n)
	if err != nil {
		return nil
	}
	text := (*windows.NTUnicodeString)(unsafe.Pointer(&buf[0]))
	args, err := windows.DecomposeCommandLine(text.String())
	if err != nil {
		return nil
	}
	return args
}
