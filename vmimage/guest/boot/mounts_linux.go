// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// systemMounts are what every Linux system has.
var systemMounts = []struct {
	source, target, kind string
	flags                uintptr
	options              string
}{
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"},
	{"bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=700"},
	{"tmpfs", "/mnt", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
}

// mountSystem mounts them, with the few folders of /run that programs expect.
func mountSystem() error {
	var errs []error
	for _, m := range systemMounts {
		if strings.HasPrefix(m.target, "/dev/") {
			_ = os.MkdirAll(m.target, 0o755) // the mount says it better
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			errs = append(errs, fmt.Errorf("mount %q: %w", m.target, err))
		}
	}
	for _, dir := range []string{"/run/dev", "/run/lock", "/run/containerd"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	return errors.Join(append(errs, enableControllers())...)
}

// enableControllers lets sub-groups use every cgroup controller, and moves PID 1 out of the root group's way.
func enableControllers() error {
	const root = "/sys/fs/cgroup"
	have, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read cgroup controllers: %w", err)
	}
	var on []string
	for _, c := range strings.Fields(string(have)) {
		on = append(on, "+"+c)
	}
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte(strings.Join(on, " ")), 0o644); err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	return nil
}

// saveMemory keeps the kernel from holding what a small machine needs otherwise. It runs before the first program is started.
func saveMemory() {
	// Huge pages for who asks: given to everybody, they make the idle engine's heaps larger by half.
	_ = os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("madvise"), 0o644) // a kernel without them needs none
	// For huge pages the kernel raises the reserve of free memory, and with it the pages that each CPU keeps at hand, by tens of mebibytes. This is its
	// own formula without them.
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return
	}
	kib := float64(si.Totalram) * float64(si.Unit) / 1024
	_ = os.WriteFile("/proc/sys/vm/min_free_kbytes", strconv.AppendInt(nil, int64(4*math.Sqrt(kib)), 10), 0o644) // more memory used, no harm else
}

// sysctls are what developers' programs need, and what networks of containers need.
var sysctls = map[string]string{
	"fs.inotify.max_user_watches":         "1048576",
	"fs.inotify.max_user_instances":       "8192",
	"fs.file-max":                         "9223372036854775807",
	"fs.nr_open":                          "1073741816",
	"vm.max_map_count":                    "1048576",
	"vm.overcommit_memory":                "1",
	"kernel.pid_max":                      "4194304",
	"kernel.panic":                        "10",
	"kernel.keys.maxkeys":                 "20000",
	"net.ipv4.ip_forward":                 "1",
	"net.ipv6.conf.all.forwarding":        "1",
	"net.ipv6.conf.all.accept_ra":         "2",
	"net.core.somaxconn":                  "4096",
	"net.ipv4.ip_local_port_range":        "32768 60999",
	"net.ipv4.ping_group_range":           "0 2147483647",
	"net.ipv4.ip_unprivileged_port_start": "0",
}

// applySysctls writes kernel settings; one that this kernel does not have is named and passed over.
func applySysctls(settings map[string]string) error {
	var errs []error
	for name, value := range settings {
		file := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("set %q to %q: %w", name, value, err))
		}
	}
	return errors.Join(errs...)
}

// MountShare mounts what the host asks for.
func MountShare(m proto.Mount) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if err := MakeTarget(m.Target); err != nil {
		return fmt.Errorf("mount %q: make folder %q: %w", m.Source, m.Target, err)
	}
	flags := uintptr(0)
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(m.Source, m.Target, m.Type, flags, m.Options); err != nil {
		return fmt.Errorf("mount %q at %q: %w", m.Source, m.Target, err)
	}
	return nil
}

// MakeTarget makes a folder to mount at. The root is read-only: in an empty top folder of the image (/home, /Users, …) a file system in memory makes room.
func MakeTarget(target string) error {
	err := os.MkdirAll(target, 0o755)
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	first, _, _ := strings.Cut(target[1:], "/")
	top := "/" + first
	if entries, readErr := os.ReadDir(top); readErr != nil || len(entries) > 0 {
		return fmt.Errorf("%w: choose a place below /home, /Users, /Volumes, /mnt, /host, /srv or /opt", err)
	}
	if err := unix.Mount("tmpfs", top, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	return os.MkdirAll(target, 0o755)
}

// sharesWait is how long the engine waits for the host to mount its shares, which takes a moment once the network is up.
const sharesWait = 30 * time.Second

// awaitMounts waits until something is mounted at each target, and returns those where nothing was in time.
func awaitMounts(ctx context.Context, targets []string, limit time.Duration) (missing []string) {
	if len(targets) == 0 {
		return nil
	}
	table, err := os.Open("/proc/self/mountinfo") // before the first look, so that no change is missed
	if err != nil {
		return targets
	}
	defer table.Close()
	for end := time.Now().Add(limit); ; {
		left := time.Until(end)
		if missing = notMounted(targets); len(missing) == 0 || left <= 0 || ctx.Err() != nil {
			return missing
		}
		// The kernel tells changes of the table by POLLPRI (proc(5)); the pauses are for ctx.
		poll := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}} //nolint:gosec // a descriptor is a small number
		_, _ = unix.Poll(poll, int(min(left, time.Second).Milliseconds())+1) // interrupted: looked at again
	}
}

// notMounted are the targets at which nothing is mounted.
func notMounted(targets []string) []string {
	data, _ := os.ReadFile("/proc/self/mountinfo") // without it nothing is
	mounted := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			mounted[unescapeMount(fields[4])] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(targets), func(t string) bool { return mounted[t] })
}

// unescapeMount undoes the octal escapes of the table: space, tab, line feed and backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
