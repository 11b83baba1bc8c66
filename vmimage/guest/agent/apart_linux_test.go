// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestApart: what is called apart never moves what /proc/self tells of, whichever threads goroutines are on.
func TestApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes namespaces: run as root")
	}
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	wanted := errors.New("wanted")
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			err := apart(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("it runs on the first thread")
				}
				return errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), wanted)
			})
			if !errors.Is(err, wanted) || err.Error() != wanted.Error() {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the process is in %s, %v; it was in %s", after, err, before)
	}
}
