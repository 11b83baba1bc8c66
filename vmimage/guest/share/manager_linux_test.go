// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share"
)

// deadMount is a mount whose server is gone, as that of an agent that was killed.
func deadMount(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	err = unix.Mount("dead", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	_ = unix.Close(fd)
	if err != nil {
		t.Skipf("needs root to mount: %v", err)
	}
}

// mountsAt are the lines of /proc/self/mountinfo of a place.
func mountsAt(t *testing.T, dir string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Fields(line)[4] == dir {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestDeadMounts: the agent in whose place another was killed leaves mounts that answer nobody; the share takes their place.
func TestDeadMounts(t *testing.T) {
	dir, err := os.MkdirTemp("", "share") // it is no t.TempDir: nothing else is to look into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range mountsAt(t, dir) {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	deadMount(t, dir)
	deadMount(t, dir+"/.") // upon the other
	var devices []string
	for _, line := range mountsAt(t, dir) {
		devices = append(devices, strings.Fields(line)[2])
	}
	replaced := make(chan []string, 1)
	m := &share.Manager{
		MakeTarget: func(path string) error { return os.MkdirAll(path, 0o755) },
		Replaced:   func(devices []string, _ string) { replaced <- devices },
		Log:        slog.New(slog.DiscardHandler),
	}
	host, guest := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, host) }() // ends with the pipe
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Serve(t.Context(), guest, fmt.Sprintf(`{"source":"share0","target":%q,"type":"fuse"}`, dir))
	}()
	select {
	case told := <-replaced:
		slices.Sort(told)
		slices.Sort(devices)
		if !slices.Equal(told, devices) {
			t.Errorf("told of the devices %v instead of %v", told, devices)
		}
	case <-ended:
		t.Error("the share was not mounted")
	case <-time.After(time.Minute):
		t.Error("nobody is told that dead mounts were replaced")
	}
	if lines := mountsAt(t, dir); len(lines) != 1 || !strings.Contains(lines[0], "share0") {
		t.Errorf("there is mounted: %q", lines)
	}
	_ = host.Close()
	<-ended
}
