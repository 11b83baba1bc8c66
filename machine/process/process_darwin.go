// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

func list() ([]int, error) {
	all, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range all {
		pids = append(pids, int(p.Proc.P_pid))
	}
	return pids, nil
}

// arguments reads what the kernel keeps of a process's start: the number of arguments, the executable, zeros, and the arguments.
func arguments(pid int) []string {
	data, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil || len(data) < 4 {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(data))
	_, rest, ok := bytes.Cut(data[4:], []byte{0})
	if !ok {
		return nil
	}
	rest = bytes.TrimLeft(rest, "\x00")
	var args []string
	for range n {
		arg, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			break
		}
		args, rest = append(args, string(arg)), after
	}
	return args
}
