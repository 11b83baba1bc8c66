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

// applyOwner replaces owner and mode by those that were set in the machine.
func (t *tree) applyOwner(fd int, name string, a *wire.Attr) {
	o, ok := t.readOwner(fd, name, a)
	if !ok {
		return
	}
	o.apply(a)
}

func (t *tree) readOwner(fd int, name string, a *wire.Attr) (owner, bool) {
	if o, ok := t.aside.get(a.Ident); ok {
		return o, true
	}
	if m := a.Mode & wire.TypeMask; m != wire.TypeRegular && m != wire.TypeFolder {
		return owner{}, false
	}
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

// keepOwner keeps what the machine set. For files that cannot have extended attributes it is kept in a file of the machine's.
func (t *tree) keepOwner(fd int, ident uint64, o owner) error {
	err := unix.Setxattr(procPath(fd), ownerAttr, []byte(o.String()), 0)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EACCES) {
		return err
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
	return unix.Chmod(procPath(fd), mode&0o7777)
}
