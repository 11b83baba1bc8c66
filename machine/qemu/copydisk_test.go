// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/seed71221737/dev/machine/sparse"
)

// newBlockQEMU starts a QEMU without a guest that has a data disk, and returns its monitor and the disk.
func newBlockQEMU(t *testing.T) (*monitor, string) {
	t.Helper()
	program, err := exec.LookPath(programName(runtime.GOARCH))
	if err != nil {
		t.Skipf("needs QEMU: %v", err)
	}
	dir, err := os.MkdirTemp("", "blk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	disk, socket := filepath.Join(dir, "data.img"), filepath.Join(dir, "q")
	content := bytes.Repeat([]byte("content."), 1<<20)
	if err := os.WriteFile(disk, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 256<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-qmp", "unix:"+socket+",server=on,wait=off",
		"-drive", "if=none,id=data,format=raw,discard=unmap,detect-zeroes=unmap,file="+disk)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		m, err := dialMonitor(t.Context(), socket, func(string, json.RawMessage) {})
		if err == nil {
			t.Cleanup(m.close)
			return m, disk
		}
		if time.Now().After(end) {
			t.Fatalf("QEMU's monitor: %v\n%s", err, said.String())
		}
	}
}

func quiet(context.Context) error { return nil }

// TestCopyDisk copies the disk of a real QEMU, again and again: what is there is there in the copy, holes stay holes, and QEMU keeps nothing of it.
func TestCopyDisk(t *testing.T) {
	m, disk := newBlockQEMU(t)
	want, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		to, settled := filepath.Join(filepath.Dir(disk), name), 0
		if err := m.copyDisk(t.Context(), to, func(context.Context) error { settled++; return nil }); err != nil {
			t.Fatal(err)
		}
		if settled != 1 {
			t.Errorf("settled %d times", settled)
		}
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the copy differs: %d bytes, %v", len(got), err)
		}
		if n, err := sparse.Allocated(to); err != nil || n > 64<<20 {
			t.Errorf("the copy takes up %d bytes, %v", n, err)
		}
	}
	if state, err := m.status(t.Context()); err != nil || state != "running" {
		t.Errorf("afterwards the VM is %q, %v", state, err)
	}
}

// TestCopyDiskFails: whatever goes wrong, the VM goes on, no file is left, and the next copy works.
func TestCopyDiskFails(t *testing.T) {
	m, disk := newBlockQEMU(t)
	to := filepath.Join(filepath.Dir(disk), "copy")
	unsettled := errors.New("not now")
	cancelled, cancel := context.WithCancel(t.Context())
	for name, do := range map[string]func() error{
		"settle": func() error {
			return m.copyDisk(t.Context(), to, func(context.Context) error { return unsettled })
		},
		"cancelled": func() error {
			return m.copyDisk(cancelled, to, func(context.Context) error { cancel(); return cancelled.Err() })
		},
		"no folder": func() error { return m.copyDisk(t.Context(), filepath.Join(to, "x"), quiet) },
	} {
		err := do()
		if err == nil || name == "settle" && !errors.Is(err, unsettled) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a file is left: %v", name, err)
		}
		if state, err := m.status(t.Context()); err != nil || state != "running" {
			t.Errorf("%s: afterwards the VM is %q, %v", name, state, err)
		}
	}
	if err := m.copyDisk(t.Context(), to, quiet); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := m.copyDisk(t.Context(), to, quiet); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that is there: %v", err)
	}
}
