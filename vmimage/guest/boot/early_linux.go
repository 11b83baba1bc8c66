// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// earlyModules find the root: storage of every hypervisor, and the root's file system. Those that the kernel has built in or the image lacks are
// passed over.
var earlyModules = []string{"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "hv_vmbus", "hv_storvsc", "erofs"}

// rootDeadline is how long the root's disk may take to appear; SCSI buses are slow.
const rootDeadline = 60 * time.Second

// Early is PID 1 in the initial RAM disk: it finds the root file system, moves there and becomes Main. It returns only on failure.
func Early() error {
	for _, m := range []struct{ source, target, kind string }{{"devtmpfs", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}} {
		if err := unix.Mount(m.source, m.target, m.kind, unix.MS_NOSUID, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %q: %w", m.target, err)
		}
	}
	r := &record{console: consoleWriter()}
	r.line("initial RAM disk")
	x, err := loadIndex()
	if err != nil {
		return err
	}
	_ = x.load(earlyModules...) // a missing device shows as a missing root, with the list of what is there
	root, err := findRoot(commandLine("dev.root"))
	if err != nil {
		return err
	}
	if err := unix.Mount(root, "/root", "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount root %q: %w", root, err)
	}
	r.line("root on %s", root)
	return switchRoot("/root")
}

// consoleWriter writes to the console even where PID 1 was started without one.
func consoleWriter() *os.File {
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		return f
	}
	return os.Stderr
}

// commandLine returns the value of a kernel parameter, or "".
func commandLine(name string) string {
	data, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(data)) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			return v
		}
	}
	return ""
}

// findRoot waits for the block device with the root file system: the one with that UUID, or any image's root when none is named.
func findRoot(uuid string) (string, error) {
	events, err := listenUevents()
	if err != nil {
		return "", err
	}
	defer unix.Close(events)
	deadline := time.Now().Add(rootDeadline)
	for {
		names := blockDevices()
		for _, name := range names {
			if got, ok := rootUUID("/dev/" + name); ok && (uuid == "" || uuid == got) {
				return "/dev/" + name, nil
			}
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("find root file system %q: none of the disks %q holds it", uuid, names)
		}
		awaitUevent(events)
	}
}

// blockDevices lists all disks and partitions.
func blockDevices() []string {
	var names []string
	entries, _ := filepath.Glob("/sys/class/block/*")
	for _, e := range entries {
		if name := filepath.Base(e); !strings.HasPrefix(name, "loop") && !strings.HasPrefix(name, "ram") && !strings.HasPrefix(name, "zram") {
			names = append(names, name)
		}
	}
	return names
}

func rootUUID(device string) (string, bool) {
	f, err := os.Open(device)
	if err != nil {
		return "", false
	}
	defer f.Close()
	holds, uuid, err := probe(f, 0)
	return uuid, err == nil && holds == contentRoot
}

// listenUevents opens the kernel's stream of device events, with a timeout of a second for each read.
func listenUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return 0, fmt.Errorf("listen for devices: %w", err)
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}))
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("listen for devices: %w", err)
	}
	return fd, nil
}

// awaitUevent returns after the next device event, or after a second.
func awaitUevent(fd int) {
	buf := make([]byte, 8192)
	_, _ = unix.Read(fd, buf) // any outcome means: look again
}

// switchRoot makes dir the root and runs the guest program from there. The initial RAM disk's files are removed first: they occupy memory.
func switchRoot(dir string) error {
	for _, m := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(m, dir+m, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %q to the root: %w", m, err)
		}
	}
	for _, old := range []string{"/init", "/usr"} {
		_ = os.RemoveAll(old) // memory, not correctness
	}
	if err := errors.Join(os.Chdir(dir), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/")); err != nil {
		return fmt.Errorf("move to the root: %w", err)
	}
	const program = "/usr/sbin/dev-guest"
	return fmt.Errorf("run %q: %w", program, unix.Exec(program, []string{"dev-guest", "init"}, []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "TERM=linux"}))
}
