// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed71221737/dev/internal/finding"
	"github.com/seed71221737/dev/machine"
)

// ailment is a fault that is made, and the one finding that it is expected to give.
type ailment struct {
	make func(t *testing.T, h *home, m *machine.Machine)
	// check and words are what is found; mends says that a repair is offered, after which the machine is well and starts.
	check, words string
	mends        bool
}

func remove(name func(machine.Dir) string) func(*testing.T, *home, *machine.Machine) {
	return func(t *testing.T, _ *home, m *machine.Machine) {
		if err := os.Remove(name(m.Dir)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(name func(machine.Dir) string, text string) func(*testing.T, *home, *machine.Machine) {
	return func(t *testing.T, _ *home, m *machine.Machine) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name(m.Dir)), 0o700), os.WriteFile(name(m.Dir), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func chmod(name func(machine.Dir) string, mode os.FileMode) func(*testing.T, *home, *machine.Machine) {
	return func(t *testing.T, _ *home, m *machine.Machine) {
		if err := os.Chmod(name(m.Dir), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func in(name string) func(machine.Dir) string {
	return func(d machine.Dir) string { return filepath.Join(string(d), filepath.FromSlash(name)) }
}

// ailments are all that the machine's checks know and that can be made without a VM's help.
var ailments = map[string]ailment{
	"settings lost": {make: remove(machine.Dir.Spec), check: "files", words: "no snapshot has it"},
	"settings torn, with a snapshot": {make: func(t *testing.T, h *home, m *machine.Machine) {
		if _, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: "good"}, nil); err != nil {
			t.Fatal(err)
		}
		overwrite(machine.Dir.Spec, "version: 1\ncpus: [")(t, h, m)
	}, check: "files", words: `settings of snapshot "good"`, mends: true},
	"settings of a newer dev": {make: overwrite(machine.Dir.Spec, "version: 99\n"), check: "files", words: "newer"},
	"disk lost":               {make: remove(machine.Dir.DataDisk), check: "files", words: "backup"},
	"login key lost":          {make: remove(machine.Dir.SSHKey), check: "files", words: "make new keys", mends: true},
	"host key damaged":        {make: overwrite(machine.Dir.HostKey, "x"), check: "files", words: "make new keys", mends: true},
	"identity damaged":        {make: overwrite(machine.Dir.ID, "x\n"), check: "files", words: "identity", mends: true},
	"key open to others":      {make: chmod(machine.Dir.SSHKey, 0o644), check: "access", words: "open to others", mends: true},
	"folder open to others":   {make: chmod(in(""), 0o755), check: "access", words: "open to others", mends: true},
	"disk closed":             {make: chmod(machine.Dir.DataDisk, 0), check: "access", words: "closed to its owner", mends: true},
	"stale socket": {make: func(t *testing.T, _ *home, m *machine.Machine) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.Dir.Monitor(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}, check: "processes", words: "sockets are left", mends: true},
	"agent killed": {make: func(t *testing.T, h *home, m *machine.Machine) {
		h.start(m)
		for _, p := range h.agents() {
			if err := p.Kill(h.ctx()); err != nil {
				t.Fatal(err)
			}
		}
	}, check: "processes", words: "without a host agent", mends: true},
	"agent hangs": {make: func(t *testing.T, h *home, m *machine.Machine) {
		h.start(m)
		for _, p := range h.agents() {
			if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}, check: "processes", words: "hangs", mends: true},
	"journal damaged":        {make: overwrite(machine.Dir.Journal, "{"), check: "changes", words: "journal.json.bak", mends: true},
	"journal of a newer dev": {make: overwrite(machine.Dir.Journal, `{"version": 99}`), check: "changes", words: "newer dev"},
	"restore interrupted":    {make: overwrite(machine.Dir.Journal, `{"version": 1, "kind": "restore", "step": "prepare"}`), check: "changes", words: "was interrupted", mends: true},
	"copies left":            {make: overwrite(in("data.img.new"), "half"), check: "changes", words: "left over", mends: true},
	"snapshot left":          {make: overwrite(in("snapshots/.tmp-x-1/data.img"), "half"), check: "changes", words: "left over", mends: true},
	"memory of nobody":       {make: overwrite(in("memory/abc.mem"), "half"), check: "memory", words: "left over", mends: true},
	"memory's facts damaged": {make: overwrite(in("memory/state.json"), "{"), check: "memory", words: "cannot be used", mends: true},
	"memory torn": {make: func(t *testing.T, h *home, m *machine.Machine) {
		suspendAway(t, h, m)
		states, err := filepath.Glob(in("memory/*.mem")(m.Dir))
		if err != nil || len(states) != 1 {
			t.Fatal(states, err)
		}
		if err := os.Truncate(states[0], 10); err != nil {
			t.Fatal(err)
		}
	}, check: "memory", words: "what ran in it is lost", mends: true},
	"memory of another disk": {make: func(t *testing.T, h *home, m *machine.Machine) {
		suspendAway(t, h, m)
		h.mark(m)
	}, check: "memory", words: "what ran in it is lost", mends: true},
	"snapshot damaged": {make: func(t *testing.T, h *home, m *machine.Machine) {
		if _, err := m.SaveSnapshot(h.ctx(), machine.SnapshotOptions{Name: "bad"}, nil); err != nil {
			t.Fatal(err)
		}
		overwrite(in("snapshots/bad/snapshot.json"), "{")(t, h, m)
	}, check: "snapshots", words: `snapshot "bad" cannot be restored`},
	"image lost": {make: func(t *testing.T, h *home, _ *machine.Machine) {
		if err := os.RemoveAll(filepath.Join(h.store.Images.Dir, "images")); err != nil {
			t.Fatal(err)
		}
	}, check: "image", words: "its image is gone"},
	"image damaged": {make: func(t *testing.T, h *home, m *machine.Machine) {
		image, err := h.store.Images.Find(m.Spec.Image, "")
		if err != nil {
			t.Fatal(err)
		}
		kernel := filepath.Join(image.Dir, "kernel")
		if err := errors.Join(os.Chmod(kernel, 0o600), os.WriteFile(kernel, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}, check: "image", words: "its image is damaged"},
	"certificate damaged": {make: overwrite(in("tls/server.pem"), "x"), check: "certificates", words: "new certificates", mends: true},
	"ports damaged":       {make: overwrite(machine.Dir.Ports, `{"ssh": 0}`), check: "loopback ports", words: "ports.json", mends: true},
}

// suspendAway suspends a machine and ends the agent that waits for it, as a restart of this computer does.
func suspendAway(t *testing.T, h *home, m *machine.Machine) {
	t.Helper()
	t.Setenv(agentVariable, agentSleeps)
	h.start(m)
	if err := m.Suspend(h.ctx(), nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range h.agents() {
		if err := p.Kill(h.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	h.await("the agent's end", func() bool { return len(h.agents()) == 0 })
	h.await("the end of its lock", func() bool { return m.Status(h.ctx()).Phase == machine.PhaseSuspended }) // a child that was being forked may hold it for a moment
}

// findings are what the machine's checks find, but for what this host cannot do.
func findings(t *testing.T, h *home, name string) (found []finding.Finding) {
	t.Helper()
	m, err := h.store.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range finding.Run(h.ctx(), append(m.Checks(), h.store.Checks()...)) {
		for _, f := range r.Findings {
			if f.What == "" || f.Cause == "" || f.Fix == "" || (f.Repair == nil) != (f.RepairText == "") {
				t.Errorf("a finding without what, cause or fix: %+v", f)
			}
			if r.Check.Name != "driver" {
				found = append(found, f)
			}
		}
	}
	return found
}

// TestDoctor makes each fault, looks for its one finding, and repairs it where a repair is offered: the machine is well then, starts, and has lost nothing.
func TestDoctor(t *testing.T) {
	for name, a := range ailments {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			m := h.create("m")
			if found := findings(t, h, "m"); len(found) > 0 {
				t.Fatalf("a machine that is well: %+v", found)
			}
			a.make(t, h, m)
			found := findings(t, h, "m")
			if !slices.ContainsFunc(found, func(f finding.Finding) bool {
				return f.Check == a.check && strings.Contains(fmt.Sprint(f.What, f.Cause, f.Fix, f.RepairText), a.words) && (f.Repair != nil) == a.mends
			}) {
				t.Errorf("found %+v", found)
			}
			if !a.mends {
				return
			}
			for _, f := range found {
				if f.Repair == nil {
					continue
				}
				if err := f.Repair(h.ctx()); err != nil {
					t.Errorf("%s: %v", f.RepairText, err)
				}
			}
			if left := findings(t, h, "m"); len(left) > 0 {
				t.Errorf("after the repair: %+v", left)
			}
			now, err := h.store.Get("m")
			if err != nil {
				t.Fatal(err)
			}
			h.start(now)
		})
	}
}

// TestDoctorOfStore: what a command that was cut off left is found and removed.
func TestDoctorOfStore(t *testing.T) {
	h := newHome(t)
	h.create("m")
	left := filepath.Join(h.store.Dir, ".tmp-gone-abc")
	if err := os.MkdirAll(filepath.Join(left, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	found := findings(t, h, "m")
	if len(found) != 1 || found[0].Check != "leftovers" || found[0].Repair == nil {
		t.Fatalf("found %+v", found)
	}
	if err := found[0].Repair(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
