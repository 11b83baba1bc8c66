// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// locksOfOthers asks that a process's own lock keeps it from locking a file again, as it is where a FUSE server takes the locks itself. By POSIX, and on a disk, a
// process's locks never stand in its own way.
const locksOfOthers = "FcntlFlockLocksFile"

// TestPosix runs the cases that go-fuse publishes for file systems, each in a share of its own.
func TestPosix(t *testing.T) {
	for name, run := range posixtest.All {
		if name == locksOfOthers {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := mounted(t, nil)
			run(t, p.target)
		})
	}
}
