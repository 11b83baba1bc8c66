// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// TestDevicesStayShut: a device that the guest makes is the guest's kernel's to open, never the host's.
func TestDevicesStayShut(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mknod(dir+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Skipf("making a device: %v", err)
	}
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	}()
	var found wire.Response
	if err := tr.do(&wire.Request{Op: wire.OpLookup, Name: "zero"}, &found); err != nil {
		t.Fatal(err)
	}
	for _, r := range []wire.Request{
		{Op: wire.OpCreate, Name: "zero", Mode: 0o644, Data: []byte("x")},
		{Op: wire.OpCreate, Name: "zero", Mode: 0o644, Flags: wire.FlagTruncate},
		{Op: wire.OpWrite, Path: "zero", Data: []byte("x")},
		{Op: wire.OpWrite, Path: "zero", Ident: found.Attr.Ident, Data: []byte("x")},
		{Op: wire.OpRead, Path: "zero", Size: 1},
		{Op: wire.OpRead, Path: "zero", Ident: found.Attr.Ident, Size: 1},
	} {
		var res wire.Response
		if err := tr.do(&r, &res); err == nil {
			t.Errorf("%+v was answered: %+v", r, res)
		}
	}
}

// TestProgramsRunOnTheHost: what the guest has read can be run on the host at once, and what it then removes can still be written by who has it open.
func TestProgramsRunOnTheHost(t *testing.T) {
	self, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(self)
	if err := errors.Join(err, os.WriteFile(dir+"/program", program, 0o755)); err != nil {
		t.Fatal(err)
	}
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	}()
	do := func(r wire.Request) wire.Response {
		t.Helper()
		var res wire.Response
		if err := tr.do(&r, &res); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		return res
	}
	ident := do(wire.Request{Op: wire.OpLookup, Name: "program"}).Attr.Ident
	do(wire.Request{Op: wire.OpRead, Path: "program", Ident: ident, Size: 1})
	if err := exec.CommandContext(t.Context(), dir+"/program").Run(); err != nil { //nolint:gosec // the test's own
		t.Error(err)
	}
	do(wire.Request{Op: wire.OpUnlink, Name: "program"})
	do(wire.Request{Op: wire.OpWrite, Path: "program", Ident: ident, Data: []byte("x")})
	if got := do(wire.Request{Op: wire.OpRead, Path: "program", Ident: ident, Size: 1}).Data; string(got) != "x" {
		t.Errorf("read %q", got)
	}
}

// TestHostTakesFilesAway: a file that the guest writes to, and that somebody on the host renames or removes, is still the guest's to write for a while.
func TestHostTakesFilesAway(t *testing.T) {
	dir := t.TempDir()
	g := greeted(t, Options{Folder: dir})
	ident := g.do(wire.Request{Op: wire.OpCreate, Name: "log", Mode: 0o644}).Attr.Ident
	g.do(wire.Request{Op: wire.OpWrite, Path: "log", Ident: ident, Data: []byte("one ")})
	if err := os.Rename(dir+"/log", dir+"/log.1"); err != nil {
		t.Fatal(err)
	}
	g.do(wire.Request{Op: wire.OpWrite, Path: "log", Ident: ident, Offset: 4, Data: []byte("two")})
	if got, err := os.ReadFile(dir + "/log.1"); err != nil || string(got) != "one two" {
		t.Errorf("the file has %q, %v", got, err)
	}
	if err := os.Remove(dir + "/log.1"); err != nil {
		t.Fatal(err)
	}
	g.do(wire.Request{Op: wire.OpWrite, Path: "log", Ident: ident, Data: []byte("ONE")})
	if got := g.do(wire.Request{Op: wire.OpRead, Path: "log", Ident: ident, Size: 100}); string(got.Data) != "ONE two" {
		t.Errorf("the file has %q", got.Data)
	}
	// What was made without a name can be written to as well.
	nameless := g.do(wire.Request{Op: wire.OpTmpfile, Mode: 0o600})
	if nameless.Attr.Ident == 0 {
		t.Fatal(unix.EINVAL)
	}
	g.do(wire.Request{Op: wire.OpWrite, Ident: nameless.Attr.Ident, Data: []byte("text")})
	if got := g.do(wire.Request{Op: wire.OpRead, Ident: nameless.Attr.Ident, Size: 100}); string(got.Data) != "text" {
		t.Errorf("the nameless file has %q", got.Data)
	}
}
