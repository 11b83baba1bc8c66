// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build unix

package daemon

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is this process's resident memory in bytes, and its processor time.
func usage() (memory uint64, cpu time.Duration) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	if fields := strings.Fields(readText("/proc/self/statm")); len(fields) > 1 {
		pages, _ := strconv.ParseUint(fields[1], 10, 64)
		return pages * uint64(os.Getpagesize()), cpu
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased, cpu
}

func readText(file string) string {
	data, _ := os.ReadFile(file) // not there on every system
	return string(data)
}
