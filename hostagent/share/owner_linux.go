// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// ownerAttr is the extended attribute with what the machine's programs see instead of the host's owner and mode.
const ownerAttr = "user.dev.stat"

// owner is what it says: UID:GID:MODE:RDEV, MODE octal with its type bits.
type owner struct {
	uid, gid, mode, rdev uint32
}

func (o owner) String() string { return fmt.Sprintf("%d:%d:%o:%d", o.uid, o.gid, o.mode, o.rdev) }

// parseOwner reads it; what is malformed is not there.
func parseOwner(s string) (o owner, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 4 {
		return owner{}, false
	}
	for i, p := range []*uint32{&o.uid, &o.gid, &o.mode, &o.rdev} {
		base := 10
		if i == 2 {
			base = 8
		}
		n, err := strconv.ParseUint(parts[i], base, 32)
		if err != nil {
			return owner{}, false
		}
		*p = uint32(n)
	}
	return o, true
}

// applyOwner replaces owner and mode by those that were set in the machine.
func (t *tree) applyOwner(fd int, name string, a *wire.Attr) {
	o, ok := t.readOwner(fd, name, a)
	if !ok {
		return
	}
	a.UID, a.GID = o.uid, o.gid
	host, kept := a.Mode&wire.TypeMask, o.mode&wire.TypeMask
	if host == kept || host == wire.TypeRegular && kept != wire.TypeFolder && kept != wire.TypeSymlink {
		a.Mode, a.Rdev = o.mode, o.rdev
	}
}

func (t *tree) readOwner(fd int, name string, a *wire.Attr) (owner, bool) {
	t.mu.Lock()
	o, ok := t.virtual[a.Ident]
	t.mu.Unlock()
	if ok {
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

// keepOwner keeps what the machine set. Files that cannot have extended attributes keep it for as long as the share is served.
func (t *tree) keepOwner(fd int, ident uint64, o owner) error {
	err := unix.Setxattr(procPath(fd), ownerAttr, []byte(o.String()), 0)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EACCES) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.virtual) >= maxVirtual {
		clear(t.virtual)
	}
	t.virtual[ident] = o
	return nil
}

// maxVirtual bounds what is kept in memory.
const maxVirtual = 1 << 18

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
		host := mode & 0o777
		if host |= 0o600; mode&wire.TypeMask == wire.TypeFolder {
			host |= 0o700
		}
		if err := unix.Chmod(procPath(fd), host); err != nil {
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
