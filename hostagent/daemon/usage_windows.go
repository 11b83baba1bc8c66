// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"runtime"
	"time"

	"golang.org/x/sys/windows"
)

// usage is this process's memory in bytes, and its processor time.
func usage() (memory uint64, cpu time.Duration) {
	var created, exited, kernel, user windows.Filetime
	if windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user) == nil {
		cpu = span(kernel) + span(user)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased, cpu
}

// span reads a time of 100 nanosecond units that is a duration.
func span(f windows.Filetime) time.Duration {
	return time.Duration((int64(f.HighDateTime)<<32 | int64(f.LowDateTime)) * 100)
}
