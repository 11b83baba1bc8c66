// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process identifies a process: a PID alone may belong to another one by now.
type process struct {
	pid   int
	start string // since boot, in clock ticks
	exe   string
}

// processesUnder are the processes whose executable lies in dir.
func processesUnder(dir string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe := executable(pid)
		if !strings.HasPrefix(exe, dir+"/") {
			continue
		}
		if start, err := startTime(pid); err == nil {
			found = append(found, process{pid: pid, start: start, exe: exe})
		}
	}
	return found, nil
}

// executable is the path of a process's program, or empty. A program that was
// replaced on disk keeps its path.
func executable(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(exe, " (deleted)")
}

// arguments is the command line of a process.
func arguments(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
}

// startTime reads when a process started, in clock ticks since boot.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(data), ") ") // the name before may hold anything
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("read start time of process %d: unexpected format", pid)
	}
	return fields[19], nil
}

// killPatience is how long the kernel may take to end a killed process: longer
// than a moment when it waits for a disk.
const killPatience = 10 * time.Second

// end terminates a process and waits until it is gone: SIGTERM, then SIGKILL
// when grace is over. Nothing happens when the PID belongs to another process
// by now.
func (p process) end(ctx context.Context, grace time.Duration) error {
	h, err := p.open()
	if err != nil || h == nil {
		return err
	}
	defer h.Close() // a handle only
	for _, step := range []struct {
		sig      unix.Signal
		patience time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, killPatience}} {
		if err := h.signal(step.sig); err != nil {
			return fmt.Errorf("end %s (process %d): %w", filepath.Base(p.exe), p.pid, err)
		}
		limited, cancel := context.WithTimeout(ctx, step.patience)
		gone := h.wait(limited)
		cancel()
		if gone == nil {
			return nil
		}
	}
	return fmt.Errorf("end %s (process %d): it is still there after SIGKILL", filepath.Base(p.exe), p.pid)
}

// handle refers to one process for ever: the kernel does not reuse it as it
// reuses PIDs.
type handle struct{ *os.File }

// open returns a handle of the process, nil when it is gone.
func (p process) open() (*handle, error) {
	fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	h := &handle{os.NewFile(uintptr(fd), "pidfd")}
	// checked after opening, so that the handle is of the process that was checked
	if start, err := startTime(p.pid); err != nil || start != p.start || executable(p.pid) != p.exe {
		return nil, h.Close()
	}
	return h, nil
}

func (h *handle) signal(sig unix.Signal) error {
	conn, err := h.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = conn.Control(func(fd uintptr) { sendErr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(sendErr, unix.ESRCH) {
		sendErr = nil
	}
	return errors.Join(err, sendErr)
}

// wait returns when the process is gone, or with ctx's error.
func (h *handle) wait(ctx context.Context) error {
	conn, err := h.SyscallConn()
	if err != nil {
		return err
	}
	if err := h.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = h.SetReadDeadline(time.Now()) // wakes the read below
	})
	defer func() {
		if !stop() {
			<-woken // it must not disturb the next wait
		}
	}()
	err = conn.Read(func(fd uintptr) bool { // called again whenever the descriptor is readable: at the process's end
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
