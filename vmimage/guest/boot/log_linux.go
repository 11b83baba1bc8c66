// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// StatusFile is where PID 1 keeps the machine's status for the agent.
const StatusFile = "/run/dev/status.json"

// record writes the boot's lines to the console and keeps the status. Safe for concurrent use.
type record struct {
	mu      sync.Mutex
	console io.Writer
	lines   strings.Builder
	status  proto.Status
	file    string // where the lines go once there is a place
	// ready: /run is there to keep the status in.
	ready bool
}

// uptime is how long the kernel has run, in seconds.
func uptime() float64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return float64(t.Sec) + float64(t.Nsec)/1e9
}

func (r *record) line(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := fmt.Sprintf("[%9.3f] dev: %s\n", uptime(), fmt.Sprintf(format, args...))
	_, _ = io.WriteString(r.console, s) // a machine without a console boots all the same
	if r.file != "" {
		appendLog(r.file, s)
	} else {
		r.lines.WriteString(s)
	}
}

// stage notes that a step of the boot is done.
func (r *record) stage(name string) {
	r.line("%s", name)
	r.change(func(s *proto.Status) { s.Stages = append(s.Stages, proto.Stage{Name: name, Seconds: uptime()}) })
}

// problem notes what keeps the machine from working.
func (r *record) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.line("PROBLEM: %s", text)
	r.change(func(s *proto.Status) { s.Problems = append(s.Problems, text) })
}

// warn notes what the user should know.
func (r *record) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.line("warning: %s", text)
	r.change(func(s *proto.Status) {
		if !slices.Contains(s.Warnings, text) {
			s.Warnings = append(s.Warnings, text)
		}
	})
}

// change alters the status and writes it out, whole or not at all. It lies in memory and needs no sync.
func (r *record) change(f func(*proto.Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.status)
	if !r.ready {
		return
	}
	data, err := json.Marshal(r.status)
	if err == nil && os.WriteFile(StatusFile+".new", data, 0o644) == nil {
		_ = os.Rename(StatusFile+".new", StatusFile) // the next change tries again
	}
}

// persist starts keeping the status, and moves the lines so far to the boot log.
func (r *record) persist() {
	r.mu.Lock()
	r.ready = true
	r.mu.Unlock()
	r.change(func(*proto.Status) {})
}

// keepLog writes the boot's lines so far to a file, and those to come.
func (r *record) keepLog(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.WriteFile(name, []byte(r.lines.String()), 0o644) // the console has them too
	r.file = name
}

// appendLog adds a line to the file; it is closed each time, so that the data disk can be unmounted.
func appendLog(name, line string) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString(line) // the console has it too
	_ = f.Close()
}
