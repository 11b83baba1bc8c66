// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// make makes a new name in a folder, in one of five ways.
func (t *tree) make(r *wire.Request, res *wire.Response) error {
	return t.in(r.Path, r.Name, func(dir int) error {
		made, err := t.makeIn(dir, r)
		if err != nil {
			return err
		}
		return t.describe(dir, made, r, res)
	})
}

// describe gives what was made, and the folder it was made in.
func (t *tree) describe(dir int, made bool, r *wire.Request, res *wire.Response) (err error) {
	if res.Attr, err = t.attrOf(dir, r.Name); err != nil {
		return err
	}
	watched := t.watch(r.Path)
	t.watched(&res.Attr, t.watchedEntry(r.Path, r.Name, &res.Attr, watched))
	if !made {
		return nil
	}
	if res.Parent, err = t.attrOf(dir, ""); err == nil {
		t.watched(&res.Parent, watched)
	}
	return err
}

func (t *tree) makeIn(dir int, r *wire.Request) (made bool, err error) {
	switch r.Op {
	case wire.OpCreate:
		return t.create(dir, r)
	case wire.OpMkdir:
		if err := unix.Mkdirat(dir, r.Name, 0o700); err != nil {
			return false, err
		}
		return true, t.claimName(dir, r, wire.TypeFolder|r.Mode&0o7777, unix.AT_REMOVEDIR)
	case wire.OpSymlink:
		if err := unix.Symlinkat(string(r.Data), dir, r.Name); err != nil {
			return false, err
		}
		return true, t.claimName(dir, r, wire.TypeSymlink|0o777, 0)
	case wire.OpLink:
		return true, t.link(dir, r)
	}
	mode := r.Mode
	whiteout := mode&wire.TypeMask == wire.TypeChar && r.Rdev() == 0 // of overlay file systems: no device has that number
	if isDevice(mode) && (!t.owners || !whiteout) {
		mode = wire.TypeRegular // only root can make it, and on the host it would be the host's: a file stands for it
	}
	if err := unix.Mknodat(dir, r.Name, mode&wire.TypeMask|0o600, int(r.Rdev())); err != nil {
		return false, err
	}
	return true, t.claimName(dir, r, r.Mode, 0)
}

// claimName claims what was just made under a name, and takes it away again where that fails.
func (t *tree) claimName(dir int, r *wire.Request, mode uint32, undo int) error {
	fd, err := unix.Openat(dir, r.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := t.claim(dir, fd, r, mode); err != nil {
		return errors.Join(err, unix.Unlinkat(dir, r.Name, undo))
	}
	return nil
}

// create makes a regular file, and keeps it open for reading: it may lose its name.
func (t *tree) create(dir int, r *wire.Request) (made bool, err error) {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(dir, r.Name, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	if errors.Is(err, unix.EEXIST) && r.Flags&wire.FlagExclusive == 0 {
		return false, t.take(dir, r, flags)
	}
	if err != nil {
		return false, err
	}
	if err := t.claim(dir, fd, r, wire.TypeRegular|r.Mode&0o7777); err != nil {
		return false, errors.Join(err, unix.Close(fd), unix.Unlinkat(dir, r.Name, 0))
	}
	return true, t.begin(fd, r)
}

// begin gives a file what came with its making: contents, owner and times.
func (t *tree) begin(fd int, r *wire.Request) error {
	_, err := writeAll(fd, r.Data, int64(r.Offset))
	if err == nil && r.Valid != 0 {
		err = t.setOwner(fd, r)
	}
	if err == nil && r.Valid&(wire.SetAtime|wire.SetMtime|wire.SetAtimeNow|wire.SetMtimeNow) != 0 {
		err = setTimes(fd, r)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return t.keep(fd)
}

// take takes a file that is there, though the guest believed that it is not.
func (t *tree) take(dir int, r *wire.Request, flags int) error {
	again := r.Flags&wire.FlagAgain != 0
	if r.Flags&wire.FlagTruncate == 0 && len(r.Data) == 0 && !again {
		return nil
	}
	fd, err := openRegular(dir, r.Name, flags)
	if err != nil {
		return err
	}
	a, err := t.attrOf(fd, "")
	if err == nil && a.Mode&wire.TypeMask != wire.TypeRegular { // it stands for a device
		err = unix.EINVAL
	}
	if err == nil && again {
		if !holds(bytesOf(fd), a.Size, r) {
			return errors.Join(unix.EEXIST, unix.Close(fd))
		}
		rest := *r
		rest.Data = nil
		return t.begin(fd, &rest)
	}
	if err == nil {
		err = t.disarm(fd, &a)
	}
	if err == nil && r.Flags&wire.FlagTruncate != 0 {
		err = unix.Ftruncate(fd, 0)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return t.begin(fd, r)
}

// keep hands a file that was written to the cache.
func (t *tree) keep(fd int) error {
	a, err := t.attrOf(fd, "")
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	t.files.release(t.files.addWriter(a.Ident, descriptor(fd)))
	return nil
}

func (t *tree) link(dir int, r *wire.Request) error {
	h, err := t.find(r.Path2, r.Ident)
	if err != nil {
		return err
	}
	defer h.close()
	// By way of /proc, because that needs no privilege; the descriptor is of what the guest meant, whatever its path leads to now.
	if err := unix.Linkat(unix.AT_FDCWD, procPath(h.fd), dir, r.Name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	t.files.unpin(r.Ident)
	return nil
}

func (t *tree) tmpfile(r *wire.Request, res *wire.Response) error {
	dir, err := t.open(r.Path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := t.claim(dir, fd, r, wire.TypeRegular|r.Mode&0o7777); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if res.Attr, err = t.attrOf(fd, ""); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	nameless, ok := descriptor(fd).forReading()
	if err := unix.Close(fd); err != nil || !ok {
		return errors.Join(unix.EIO, err)
	}
	f := t.files.add(res.Attr.Ident, nameless)
	t.files.pin(f)
	t.files.release(f)
	return nil
}

// remove removes a name. A file that thereby loses its last one stays open for programs that use it, until the guest forgets it.
func (t *tree) remove(r *wire.Request, res *wire.Response) error {
	return t.in(r.Path, r.Name, func(dir int) (err error) {
		flags := 0
		if r.Op == wire.OpRmdir {
			flags = unix.AT_REMOVEDIR
		}
		release, ident := t.pinName(dir, r.Name)
		if r.Ident != 0 && ident != r.Ident { // another file has the name by now
			release(false)
			return unix.ENOENT
		}
		err = unix.Unlinkat(dir, r.Name, flags)
		release(err == nil)
		if err != nil {
			return err
		}
		if res.Parent, err = t.attrOf(dir, ""); err == nil {
			t.watched(&res.Parent, t.watch(r.Path))
		}
		return err
	})
}

// pinName opens a file that is about to lose its last name, and tells its identity. The function it returns keeps it, or lets it go; what is kept of its owner goes
// with it.
func (t *tree) pinName(dir int, name string) (release func(gone bool), ident uint64) {
	a, err := t.attrOf(dir, name)
	if err != nil {
		return func(bool) {}, 0
	}
	if last := a.Nlink == 1 || a.Mode&wire.TypeMask == wire.TypeFolder; !last {
		return func(bool) {}, a.Ident
	}
	forget := func(gone bool) {
		if gone {
			t.aside.drop(a.Ident)
		}
	}
	if a.Mode&wire.TypeMask != wire.TypeRegular {
		return forget, a.Ident
	}
	f := t.files.cached(a.Ident)
	if f == nil {
		fd, err := openRegular(dir, name, unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_RDONLY)
		if err != nil {
			return forget, a.Ident
		}
		if now, err := t.attrOf(fd, ""); err != nil || now.Ident != a.Ident { // another file has the name by now
			_ = unix.Close(fd) // nothing was written through it
			return func(bool) {}, now.Ident
		}
		f = t.files.add(a.Ident, descriptor(fd))
	}
	return func(gone bool) {
		if gone {
			t.files.pin(f)
		}
		t.files.release(f)
	}, a.Ident
}

func (t *tree) rename(r *wire.Request, res *wire.Response) error {
	if err := checkName(r.Name2); err != nil {
		return err
	}
	return t.in(r.Path, r.Name, func(from int) error {
		to, err := t.open(r.Path2, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		var flags uint
		if r.Flags&wire.FlagNoReplace != 0 {
			flags |= unix.RENAME_NOREPLACE
		}
		release := func(bool) {}
		if r.Flags&wire.FlagExchange != 0 {
			flags |= unix.RENAME_EXCHANGE
		} else {
			release, _ = t.pinName(to, r.Name2)
		}
		err = unix.Renameat2(from, r.Name, to, r.Name2, flags)
		release(err == nil)
		if err != nil {
			return err
		}
		if res.Parent, err = t.attrOf(from, ""); err != nil {
			return err
		}
		t.watched(&res.Parent, t.watch(r.Path))
		if res.Attr, err = t.attrOf(to, ""); err == nil {
			t.watched(&res.Attr, t.watch(r.Path2))
		}
		return err
	})
}

// setattr changes attributes, the size first: it is what most often fails.
func (t *tree) setattr(r *wire.Request, res *wire.Response) error {
	if r.Valid&wire.SetSize != 0 {
		h, err := t.content(r.Path, r.Ident, true)
		if err != nil {
			return err
		}
		defer h.close()
		if err := unix.Ftruncate(h.fd, int64(r.Size)); err != nil {
			return err
		}
	}
	h, err := t.find(r.Path, r.Ident)
	if err != nil {
		return err
	}
	defer h.close()
	if err := t.setOwner(h.fd, r); err != nil {
		return err
	}
	if r.Valid&(wire.SetAtime|wire.SetMtime|wire.SetAtimeNow|wire.SetMtimeNow) != 0 {
		if err := setTimes(h.fd, r); err != nil {
			return err
		}
	}
	r.Ident = 0
	if res.Attr, err = t.attrOf(h.fd, ""); err != nil {
		return err
	}
	t.watched(&res.Attr, t.watch(folderOf(r.Path, &res.Attr)))
	return nil
}

func setTimes(fd int, r *wire.Request) error {
	pick := func(set, now uint32, at int64) unix.Timespec {
		switch {
		case r.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		case r.Valid&set != 0:
			return unix.NsecToTimespec(at)
		}
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	times := []unix.Timespec{pick(wire.SetAtime, wire.SetAtimeNow, r.Atime), pick(wire.SetMtime, wire.SetMtimeNow, r.Mtime)}
	err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // an older kernel
		err = unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), times, 0)
	}
	return err
}

// setOwner sets owner, group and mode, on the file itself or beside it.
func (t *tree) setOwner(fd int, r *wire.Request) error {
	if r.Valid&(wire.SetMode|wire.SetUID|wire.SetGID|wire.KillSUID) == 0 {
		return nil
	}
	a, err := t.attrOf(fd, "")
	if err != nil {
		return err
	}
	want := wanted(a, r)
	if t.owners {
		return t.setRealOwner(fd, a, want, r.Valid)
	}
	if a.Mode&wire.TypeMask != wire.TypeSymlink && want.mode != a.Mode {
		if err := unix.Chmod(procPath(fd), hostMode(want.mode)); err != nil {
			return err
		}
	}
	if a.UID == want.uid && a.GID == want.gid && a.Mode == want.mode {
		return nil
	}
	return t.keepOwner(fd, a.Ident, want)
}

func (t *tree) setRealOwner(fd int, have wire.Attr, want owner, valid uint32) error {
	if valid&(wire.SetUID|wire.SetGID) != 0 {
		uid, gid := -1, -1
		if valid&wire.SetUID != 0 {
			uid = int(want.uid)
		}
		if valid&wire.SetGID != 0 {
			gid = int(want.gid)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
		if valid&(wire.SetMode|wire.KillSUID) == 0 && have.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && have.Mode&wire.TypeMask == wire.TypeRegular {
			want.mode = have.Mode // the guest's kernel decides what a change of owner does to the mode
		} else if valid&(wire.SetMode|wire.KillSUID) == 0 {
			return nil
		}
	}
	if have.Mode&wire.TypeMask == wire.TypeSymlink {
		return nil
	}
	if isSpecial(have.Mode) || isSpecial(want.mode) {
		return t.setRealMode(fd, have.Ident, want)
	}
	return unix.Chmod(procPath(fd), want.mode&0o7777)
}
