// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastGrace is how long what is left may take to end, once the engine is down.
const lastGrace = 3 * time.Second

// shutdown ends the services (dockerd first: it stops containers, each with its grace), then everything else, writes out what is cached, and turns
// the machine off or starts it again.
func (m *machine) shutdown(cancel context.CancelFunc, order os.Signal) {
	reboot := order == SignalReboot || order == unix.SIGINT
	m.record.line("going down")
	// The agent ends last: the host may be following this over its link.
	for _, name := range []string{"dockerd", "containerd", "agent"} {
		m.mu.Lock()
		stop := m.stops[name]
		m.mu.Unlock()
		if stop != nil {
			stop()
			m.record.line("%s ended", name)
		}
	}
	cancel()
	_ = unix.Kill(-1, unix.SIGTERM)
	m.awaitOrphans()
	_ = unix.Kill(-1, unix.SIGKILL)
	unix.Sync()
	m.unmountAll()
	m.record.line("data written")
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if reboot {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	_ = unix.Reboot(how)
}

// awaitOrphans returns when no other process is left, or after lastGrace.
func (m *machine) awaitOrphans() {
	deadline := time.After(lastGrace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if !othersAlive() {
			return
		}
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// othersAlive tells whether a process with a program is left; the kernel's own have none.
func othersAlive() bool {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if cmdline, err := os.ReadFile(d + "/cmdline"); err == nil && len(cmdline) > 0 && d != "/proc/1" {
			return true
		}
	}
	return false
}

// unmountAll unmounts what lies on the data disk, deepest first, and then the disk; what is busy becomes read-only, which writes it out as well.
func (m *machine) unmountAll() {
	data, _ := os.ReadFile("/proc/self/mounts")
	var targets []string
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Fields(line); len(f) > 2 && (strings.HasPrefix(f[1], dataFolder) || strings.HasPrefix(f[1], "/run/docker") || strings.HasPrefix(f[1], "/run/containerd")) {
			targets = append(targets, f[1])
		}
	}
	swapOff(swapFile)
	slices.Reverse(targets)
	for _, t := range targets {
		if unix.Unmount(t, 0) != nil && t == dataFolder {
			if err := unix.Mount("", t, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				m.record.line("unmount data disk: %v", err)
			}
		}
	}
	unix.Sync()
}

// swapOff turns a swap file off; one that was never on is no matter.
func swapOff(name string) {
	if p, err := unix.BytePtrFromString(name); err == nil {
		_, _, _ = unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0) // an unmount that fails says the rest
	}
}

// watchPowerButton turns presses of the power button into an order to power off.
func watchPowerButton(orders chan<- os.Signal) {
	const (
		eventSize = 24
		typeKey   = 1
		keyPower  = 116
	)
	events, err := listenUevents()
	if err != nil {
		return // the host has other ways
	}
	watched := map[string]bool{}
	for {
		names, _ := filepath.Glob("/dev/input/event*")
		for _, name := range names {
			if watched[name] {
				continue
			}
			f, err := os.Open(name)
			if err != nil {
				continue
			}
			watched[name] = true
			go func() {
				defer f.Close()
				buf := make([]byte, eventSize)
				for {
					if n, err := f.Read(buf); err != nil || n != eventSize {
						return
					}
					if binary.LittleEndian.Uint16(buf[16:]) == typeKey && binary.LittleEndian.Uint16(buf[18:]) == keyPower && buf[20] == 1 {
						orders <- unix.SIGPWR
					}
				}
			}()
		}
		awaitUevent(events)
	}
}
