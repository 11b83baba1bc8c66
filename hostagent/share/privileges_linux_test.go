// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%q: %v", path, err)
	}
	return st
}

// TestPrivilegesStayInTheMachine: what the machine's programs make is never a device of the host's or a program that gives rights there, also where root
// serves the share, and they see what they have made.
func TestPrivilegesStayInTheMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("others than root cannot give rights away")
	}
	for _, kind := range []string{"with attributes", "without"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			if kind == "without" {
				if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
					t.Skipf("a file system without attributes cannot be mounted: %v", err)
				}
				t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			}
			privileges(t, dir)
		})
	}
}

func privileges(t *testing.T, dir string) {
	state := filepath.Join(t.TempDir(), "owners")
	g := greeted(t, Options{Folder: dir, State: state})
	attrs := func(name string, mode, rdev uint32) {
		t.Helper()
		if a := g.do(wire.Request{Op: wire.OpLookup, Name: name}).Attr; a.Mode != mode || a.Rdev != rdev {
			t.Errorf("the machine sees %q as %o, %x instead of %o, %x", name, a.Mode, a.Rdev, mode, rdev)
		}
		if st := stat(t, filepath.Join(dir, name)); st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 || st.Mode&0o777 != mode&0o777 {
			t.Errorf("the host has %q as %o for %o", name, st.Mode, mode)
		}
	}
	memory := uint32(unix.Mkdev(1, 1))
	g.do(wire.Request{Op: wire.OpMknod, Name: "mem", Mode: wire.TypeChar | 0o666, Size: uint64(memory)})
	attrs("mem", wire.TypeChar|0o666, memory)
	disk := uint32(unix.Mkdev(8, 0))
	ident := g.do(wire.Request{Op: wire.OpMknod, Name: "disk", Mode: wire.TypeBlock | 0o600, Size: uint64(disk)}).Attr.Ident
	g.do(wire.Request{Op: wire.OpSetattr, Path: "disk", Ident: ident, Valid: wire.SetMode | wire.SetUID, Mode: 0o660, OwnerUID: 5})
	attrs("disk", wire.TypeBlock|0o660, disk)
	for _, r := range []wire.Request{
		{Op: wire.OpWrite, Path: "disk", Ident: ident, Data: []byte("x")}, {Op: wire.OpCreate, Name: "disk", Mode: 0o644, Data: []byte("x")}, {Op: wire.OpRead, Path: "disk", Size: 1},
	} {
		if res := g.ask(r); res.Errno == 0 {
			t.Errorf("operation %d on a device was answered", r.Op)
		}
	}
	g.do(wire.Request{Op: wire.OpMknod, Name: "whiteout", Mode: wire.TypeChar})
	if st := stat(t, dir+"/whiteout"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("a whiteout of overlay is %o, %x", st.Mode, st.Rdev)
	}

	ident = g.do(wire.Request{Op: wire.OpCreate, Name: "su", Mode: 0o4755, Data: []byte("text")}).Attr.Ident
	attrs("su", wire.TypeRegular|0o4755, 0)
	g.do(wire.Request{Op: wire.OpSetattr, Path: "su", Ident: ident, Valid: wire.SetMode, Mode: 0o6711})
	attrs("su", wire.TypeRegular|0o6711, 0)
	g.do(wire.Request{Op: wire.OpSetattr, Path: "su", Ident: ident, Valid: wire.SetUID | wire.SetGID, OwnerUID: 3, OwnerGID: 4})
	attrs("su", wire.TypeRegular|0o6711, 0)
	if st := stat(t, dir+"/su"); st.Uid != 3 || st.Gid != 4 {
		t.Errorf("it belongs to %d:%d", st.Uid, st.Gid)
	}
	g.do(wire.Request{Op: wire.OpLink, Path2: "su", Ident: ident, Name: "su2"})
	attrs("su2", wire.TypeRegular|0o6711, 0)
	g.do(wire.Request{Op: wire.OpWrite, Path: "su", Ident: ident, Flags: wire.FlagKillSUID, Data: []byte("x")})
	attrs("su", wire.TypeRegular|0o711, 0)

	// The host's own.
	if err := errors.Join(os.WriteFile(dir+"/sudo", nil, 0o755), unix.Chmod(dir+"/sudo", 0o4755)); err != nil {
		t.Fatal(err)
	}
	ident = g.do(wire.Request{Op: wire.OpLookup, Name: "sudo"}).Attr.Ident
	g.do(wire.Request{Op: wire.OpWrite, Path: "sudo", Ident: ident, Data: []byte("evil")})
	attrs("sudo", wire.TypeRegular|0o4755, 0)
	g.do(wire.Request{Op: wire.OpSetattr, Path: "sudo", Ident: ident, Valid: wire.SetMode, Mode: 0o755})
	attrs("sudo", wire.TypeRegular|0o755, 0)

	// Another agent sees the same.
	next := greeted(t, Options{Folder: dir, State: state})
	if a := next.do(wire.Request{Op: wire.OpLookup, Name: "mem"}).Attr; a.Mode != wire.TypeChar|0o666 || a.Rdev != memory {
		t.Errorf("after a restart the device is %o, %x", a.Mode, a.Rdev)
	}
	for _, name := range []string{"mem", "disk"} {
		next.do(wire.Request{Op: wire.OpUnlink, Name: name})
	}
	if err := os.WriteFile(dir+"/new", nil, 0o644); err != nil { // the same inode, perhaps
		t.Fatal(err)
	}
	if a := next.do(wire.Request{Op: wire.OpLookup, Name: "new"}).Attr; a.Mode != wire.TypeRegular|0o644 {
		t.Errorf("a new file is %o", a.Mode)
	}
}

// TestOwnersGoWithTheirFiles: nothing is kept of files that were removed or replaced, and an attribute counts more than what is kept beside the files.
func TestOwnersGoWithTheirFiles(t *testing.T) {
	dir := t.TempDir()
	tr, err := openTree(dir, filepath.Join(t.TempDir(), "owners"))
	if err != nil {
		t.Fatal(err)
	}
	tr.owners = false
	defer func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	}()
	do := func(r wire.Request) wire.Response {
		t.Helper()
		var res wire.Response
		if err := tr.do(&r, &res); err != nil {
			t.Fatalf("operation %d of %q: %v", r.Op, r.Name, err)
		}
		return res
	}
	owners := func(due int, when string) {
		t.Helper()
		if len(tr.aside.all) != due {
			t.Errorf("%s owners of %d files are kept, not %d", when, len(tr.aside.all), due)
		}
	}
	for _, name := range []string{"a", "b"} { // links have no attributes
		do(wire.Request{Op: wire.OpSymlink, Name: name, UID: 12, Data: []byte("x")})
	}
	owners(2, "at first")
	do(wire.Request{Op: wire.OpRename, Name: "a", Name2: "b"})
	owners(1, "after a replacement")
	do(wire.Request{Op: wire.OpUnlink, Name: "b"})
	owners(0, "after a removal")

	made := do(wire.Request{Op: wire.OpCreate, Name: "f", Mode: 0o644, UID: 12}).Attr
	if err := tr.aside.put(made.Ident, owner{13, 13, wire.TypeRegular | 0o600, 0}); err != nil {
		t.Fatal(err)
	}
	if _, ok := tr.readAttribute(tr.root, "f"); !ok {
		t.Skip("this file system has no attributes")
	}
	if a := do(wire.Request{Op: wire.OpLookup, Name: "f"}).Attr; a.UID != 12 {
		t.Errorf("what is kept beside the file wins: %d", a.UID)
	}
	do(wire.Request{Op: wire.OpUnlink, Name: "f"})
	tr.forget(&wire.Request{Op: wire.OpForget, Ident: made.Ident})
	owners(0, "after a file was forgotten")
}

// TestReadOnlyStaysUntouched: a share that is only to be read is not changed for a moment in order to read it either.
func TestReadOnlyStaysUntouched(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	const nobody = 65534
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/f", []byte("text"), 0o600), os.Chown(dir+"/f", nobody, nobody), os.Chmod(dir+"/f", 0)); err != nil {
		t.Fatal(err)
	}
	before := stat(t, dir+"/f")
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	tr.owners, tr.readOnly = false, true
	defer func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	}()
	read := func() error { // as somebody else, to whom rights matter
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Setfsuid(nobody); err != nil {
			return err
		}
		defer func() { _ = unix.Setfsuid(0) }()
		return tr.do(&wire.Request{Op: wire.OpRead, Path: "f", Size: 4}, &wire.Response{})
	}
	if err := read(); !errors.Is(err, unix.EACCES) {
		t.Errorf("reading what is nobody's to read: %v", err)
	}
	if now := stat(t, dir+"/f"); now.Ctim != before.Ctim || now.Mode != before.Mode {
		t.Errorf("it was changed: %+v", now)
	}
	tr.readOnly = false
	if err := read(); err != nil {
		t.Errorf("where the machine's root may change it: %v", err)
	}
}
