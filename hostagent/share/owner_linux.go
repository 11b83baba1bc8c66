// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// ownerAttr is the extended attribute with what the machine's programs see instead of the host's owner and mode.
const ownerAttr = "user.dev.stat"

// beside is a bit of a regular file's mode on the host that says, where root serves the share, that the attribute has more of it: the sticky bit, which means
// nothing there. All other files need no look at their attributes.
const beside = unix.S_ISVTX

// applySpecial adds what only the machine may see of a file of root's: set-user-id and set-group-id, and that it is a device.
func (t *tree) applySpecial(fd int, name string, a *wire.Attr) {
	o, ok := t.readOwner(fd, name, a)
	if !ok {
		return
	}
	if isDevice(o.mode) {
		a.Mode, a.Rdev = a.Mode&^uint32(wire.TypeMask)|o.mode&wire.TypeMask, o.rdev
	}
	a.Mode = a.Mode&^uint32(modeBits) | o.mode&modeBits
}

// modeBits are a mode's that are not permissions.
const modeBits = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

func isDevice(mode uint32) bool {
	return mode&wire.TypeMask == wire.TypeBlock || mode&wire.TypeMask == wire.TypeChar
}

// isSpecial says that a mode has what the host's file must not have.
func isSpecial(mode uint32) bool {
	return isDevice(mode) || mode&wire.TypeMask == wire.TypeRegular && mode&modeBits != 0
}

// setRealMode sets the mode of a file of root's. What would give rights on the host, to who runs it or opens it, is kept beside it: there it was asked for by
// programs of the machine, which have no rights here.
func (t *tree) setRealMode(fd int, ident uint64, want owner) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return unix.Chmod(procPath(fd), want.mode&0o7777)
	case !isSpecial(want.mode):
		if st.Mode&beside != 0 {
			_ = unix.Removexattr(procPath(fd), ownerAttr) // without the mark it is not looked at
			t.aside.drop(ident)
		}
		return unix.Chmod(procPath(fd), want.mode&0o777)
	}
	if err := t.keepOwner(fd, ident, want); err != nil {
		return err
	}
	return unix.Chmod(procPath(fd), want.mode&0o777|beside)
}

// disarm prepares a file of root's for being written by the machine: a program that gives rights to who runs it on the host does so no more.
func (t *tree) disarm(fd int, a *wire.Attr) error {
	if !t.owners || a.Mode&wire.TypeMask != wire.TypeRegular || a.Mode&modeBits == 0 {
		return nil
	}
	return t.setRealMode(fd, a.Ident, owner{a.UID, a.GID, a.Mode, a.Rdev})
}

// applyOwner replaces owner and mode by those that were set in the machine.
func (t *tree) applyOwner(fd int, name string, a *wire.Attr) {
	o, ok := t.readOwner(fd, name, a)
	if !ok {
		return
	}
	o.apply(a)
}

// readOwner reads what is kept of a file: by itself, or where it cannot.
func (t *tree) readOwner(fd int, name string, a *wire.Attr) (owner, bool) {
	if m := a.Mode & wire.TypeMask; m == wire.TypeRegular || m == wire.TypeFolder {
		if o, ok := t.readAttribute(fd, name); ok {
			return o, true
		}
	}
	return t.aside.get(a.Ident)
}

func (t *tree) readAttribute(fd int, name string) (owner, bool) {
	path := procPath(fd)
	if name != "" {
		path += "/" + name
	}
	var buf [64]byte
	var n int
	var err error
	if name == "" {
		n, err = unix.Getxattr(path, ownerAttr, buf[:])
	} else {
		n, err = unix.Lgetxattr(path, ownerAttr, buf[:])
	}
	if err != nil {
		return owner{}, false
	}
	return parseOwner(string(buf[:n]))
}

// keepOwner keeps what the machine set. For files that cannot have extended attributes it is kept in a file of the machine's; what they had is then taken away,
// because it would count more.
func (t *tree) keepOwner(fd int, ident uint64, o owner) error {
	err := unix.Setxattr(procPath(fd), ownerAttr, []byte(o.String()), 0)
	if err == nil {
		t.aside.drop(ident)
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EACCES) {
		return err
	}
	if _, has := t.readAttribute(fd, ""); has {
		if removeErr := unix.Removexattr(procPath(fd), ownerAttr); removeErr != nil {
			return err
		}
	}
	return t.aside.put(ident, o)
}

// claim gives a new file to who made it, with its mode.
func (t *tree) claim(dir, fd int, r *wire.Request, mode uint32) error {
	if t.owners {
		return t.claimForReal(dir, fd, r, mode)
	}
	a, err := t.attrOf(fd, "")
	if err != nil {
		return err
	}
	if a.Mode&wire.TypeMask != wire.TypeSymlink {
		if err := unix.Chmod(procPath(fd), hostMode(mode)); err != nil {
			return err
		}
	}
	want := owner{r.UID, r.GID, mode, r.Rdev()}
	if a, err = t.attrOf(fd, ""); err != nil {
		return err
	}
	if a.UID == want.uid && a.GID == want.gid && a.Mode == want.mode {
		return nil
	}
	return t.keepOwner(fd, a.Ident, want)
}

func (t *tree) claimForReal(dir, fd int, r *wire.Request, mode uint32) error {
	gid := int(r.GID)
	var parent unix.Stat_t
	if err := unix.Fstat(dir, &parent); err != nil {
		return err
	}
	if parent.Mode&unix.S_ISGID != 0 {
		gid = -1 // the folder's, as it is already
		if mode&wire.TypeMask == wire.TypeFolder {
			mode |= unix.S_ISGID
		}
	}
	if r.UID != 0 || gid > 0 || parent.Mode&unix.S_ISGID != 0 {
		if err := unix.Fchownat(fd, "", int(r.UID), gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if mode&wire.TypeMask == wire.TypeSymlink {
		return nil
	}
	if !isSpecial(mode) {
		return unix.Chmod(procPath(fd), mode&0o7777)
	}
	a, err := t.attrOf(fd, "")
	if err != nil {
		return err
	}
	return t.setRealMode(fd, a.Ident, owner{a.UID, a.GID, mode, r.Rdev()})
}
