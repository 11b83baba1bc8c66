// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// apart calls f on a thread of its own, which ends with it, so that it may be taken to other namespaces. It is never the process' first thread: that does not end, and
// what /proc/self tells of is where that one is.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, but for the first thread
		if unix.Gettid() == unix.Getpid() {
			done <- apart(f) // while this goroutine holds the thread, another one cannot be on it
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}
