// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// descriptor is an open file.
type descriptor int

func (d descriptor) close() { _ = unix.Close(int(d)) }

// forReading opens the same file once more, whether it has a name or not.
func (d descriptor) forReading() (descriptor, bool) {
	fd, err := unix.Open(procPath(int(d)), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	return descriptor(fd), err == nil
}

// tree is a folder of the host's. Its methods take paths of the guest's.
type tree struct {
	root   int
	owners bool // files keep the owners that the guest gives them
	// readOnly: nothing is changed, not even for a moment.
	readOnly bool
	watcher  Watcher
	files    *files
	room     room
	// walk: the system cannot look a path up beneath a folder in one step.
	walk atomic.Bool
	// aside has owners and modes of files that keep no extended attributes.
	aside *aside
}

func openTree(folder, state string) (*tree, error) {
	kept, err := openAside(state)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &tree{root: fd, owners: os.Geteuid() == 0, files: newFiles(), aside: kept}
	t.room.dev, err = deviceOf(fd)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tree) close() error {
	t.files.close()
	return errors.Join(unix.Close(t.root), t.aside.close())
}

// errno is an error's number for the guest.
func errno(err error) uint16 {
	var e unix.Errno
	if errors.As(err, &e) && e != 0 {
		return uint16(e)
	}
	return wire.EIO
}

// open opens what is at a path, which may be a symbolic link only with O_PATH.
func (t *tree) open(path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	if strings.HasPrefix(path, "/") || len(path) > wire.MaxPath {
		return -1, unix.EINVAL
	}
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	if flags&unix.O_PATH != 0 {
		flags &^= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	if !t.walk.Load() {
		how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		if flags&unix.O_PATH != 0 {
			// The last component may be a symbolic link, which O_NOFOLLOW opens; RESOLVE_NO_SYMLINKS allows that.
			how.Flags = uint64(flags)
		}
		for {
			fd, err := unix.Openat2(t.root, path, &how)
			switch {
			case err == unix.EAGAIN || err == unix.EINTR: // something was renamed meanwhile
				continue
			case err == unix.ENOSYS || err == unix.EPERM && flags&unix.O_PATH != 0: // an old kernel, or a sandbox that knows no such call
				t.walk.Store(true)
				return t.openWalking(path, flags)
			}
			return fd, err
		}
	}
	return t.openWalking(path, flags)
}

// openWalking opens a path component by component.
func (t *tree) openWalking(path string, flags int) (int, error) {
	at := t.root
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == ".." || name == "" {
			return -1, unix.EINVAL
		}
		how := flags
		if more {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := unix.Openat(at, name, how, 0)
		if at != t.root {
			_ = unix.Close(at) // a folder that was only looked at
		}
		if err != nil || !more {
			return fd, err
		}
		at, path = fd, rest
	}
}

// checkName refuses what is no name of a file in a folder.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	case len(name) > wire.MaxName:
		return unix.ENAMETOOLONG
	}
	return nil
}

// in opens the folder at a path to do something to a name in it.
func (t *tree) in(path, name string, do func(dir int) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir, err := t.open(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return do(dir)
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// attrOf are the attributes of a name in an open folder, or of the open file itself when name is "".
func (t *tree) attrOf(fd int, name string) (wire.Attr, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, flags, statMask, &st); err != nil {
		return wire.Attr{}, err
	}
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	born := uint64(0)
	if st.Mask&unix.STATX_BTIME != 0 {
		born = uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec)
	}
	a := wire.Attr{
		Ident: identity(dev, st.Ino, born), Ino: st.Ino, Size: st.Size, Blocks: st.Blocks, Atime: nano(st.Atime), Mtime: nano(st.Mtime), Ctime: nano(st.Ctime),
		Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid, Rdev: uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)),
	}
	if t.room.is(t.root, dev) {
		a.Flags |= wire.Roomy
	}
	if !t.owners {
		t.applyOwner(fd, name, &a)
	} else if a.Mode&(unix.S_IFMT|beside) == unix.S_IFREG|beside {
		t.applySpecial(fd, name, &a)
	}
	return a, nil
}

func nano(ts unix.StatxTimestamp) int64 { return ts.Sec*1e9 + int64(ts.Nsec) }

// watched notes that the guest may believe attributes until it hears otherwise.
func (t *tree) watched(a *wire.Attr, folder bool) {
	if folder {
		a.Flags |= wire.Watched
	}
}

func (t *tree) watch(path string) bool { return t.watcher != nil && t.watcher.Add(path) }

func (t *tree) rootAttr() (wire.Attr, error) {
	a, err := t.attrOf(t.root, "")
	t.watched(&a, t.watch(""))
	return a, err
}

// procPath names an open file for calls that take no descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// handle is an open file that may be shared with others.
type handle struct {
	fd   int
	held *file
	t    *tree
}

func (h handle) close() {
	if h.held != nil {
		h.t.files.release(h.held)
		return
	}
	_ = unix.Close(h.fd) // nothing was written through it
}

// find opens a file for looking at it and changing its attributes: by its identity where that is known and the file is in use, else by its path.
func (t *tree) find(path string, ident uint64) (handle, error) {
	if f := t.files.get(ident, false); f != nil {
		return handle{int(f.fd), f, t}, nil
	}
	fd, err := t.open(path, unix.O_PATH)
	if err != nil {
		return handle{}, err
	}
	if ident != 0 {
		a, err := t.attrOf(fd, "")
		if err == nil && a.Ident != ident {
			err = unix.ESTALE
		}
		if err != nil {
			_ = unix.Close(fd)
			return handle{}, err
		}
	}
	return handle{fd: fd, t: t}, nil
}

// content opens a regular file for reading or writing.
func (t *tree) content(path string, ident uint64, write bool) (handle, error) {
	if f := t.files.get(ident, write); f != nil {
		return handle{int(f.fd), f, t}, nil
	}
	fd, err := t.openContent(path, ident, write)
	if err != nil {
		return handle{}, err
	}
	a, err := t.attrOf(fd, "")
	switch {
	case err != nil:
	case a.Mode&wire.TypeMask == wire.TypeFolder:
		err = unix.EISDIR
	case a.Mode&wire.TypeMask != wire.TypeRegular:
		err = unix.EINVAL
	case ident != 0 && a.Ident != ident:
		err = unix.ESTALE
	case write:
		err = t.disarm(fd, &a)
	}
	if err != nil {
		_ = unix.Close(fd)
		return handle{}, err
	}
	var f *file
	if write {
		f = t.files.addWriter(a.Ident, descriptor(fd))
	} else {
		f = t.files.add(a.Ident, descriptor(fd))
	}
	return handle{int(f.fd), f, t}, nil
}

// openContent opens for reading, or for both: what is open already by way of that, because its name may be gone.
func (t *tree) openContent(path string, ident uint64, write bool) (int, error) {
	mode := unix.O_RDONLY // what is open for writing cannot be run on the host
	if write {
		mode = unix.O_RDWR
	}
	if f := t.files.get(ident, false); f != nil {
		defer t.files.release(f)
		return t.reopen(int(f.fd), mode)
	}
	at, err := t.open(path, unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return t.reopen(at, mode)
}

// reopen opens what is open already. Where the host's user has no right that the machine's root would not ask for, the mode is lifted for a moment.
func (t *tree) reopen(at, mode int) (int, error) {
	fd, err := reopenRegular(at, mode)
	if err == nil || t.owners || t.readOnly || !errors.Is(err, unix.EACCES) {
		return fd, err
	}
	var st unix.Stat_t
	if unix.Fstat(at, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || unix.Chmod(procPath(at), st.Mode&0o7777|0o600) != nil {
		return -1, err
	}
	defer func() { _ = unix.Chmod(procPath(at), st.Mode&0o7777) }() // as it was
	return unix.Open(procPath(at), mode|unix.O_CLOEXEC, 0)
}

// openRegular opens a regular file by its name in an open folder.
func openRegular(dir int, name string, flags int) (int, error) {
	at, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return reopenRegular(at, flags)
}

// reopenRegular opens what O_PATH has found, if it is a regular file. Nothing else is opened even for a moment: for an agent that is root the guest can
// make devices, which are the host's own once they are open, and opening some of them does something already.
func reopenRegular(at, flags int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return unix.Open(procPath(at), flags&^unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	case unix.S_IFDIR:
		return -1, unix.EISDIR
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	}
	return -1, unix.EINVAL
}

// do carries out one request but OpReaddir.
func (t *tree) do(r *wire.Request, res *wire.Response) error {
	switch r.Op {
	case wire.OpLookup:
		return t.lookup(r, res)
	case wire.OpGetattr:
		return t.getattr(r, res)
	case wire.OpSetattr:
		return t.setattr(r, res)
	case wire.OpReadlink:
		return t.readlink(r, res)
	case wire.OpCreate, wire.OpMknod, wire.OpMkdir, wire.OpSymlink, wire.OpLink:
		return t.make(r, res)
	case wire.OpTmpfile:
		return t.tmpfile(r, res)
	case wire.OpUnlink, wire.OpRmdir:
		return t.remove(r, res)
	case wire.OpRename:
		return t.rename(r, res)
	case wire.OpRead:
		return t.read(r, res)
	case wire.OpWrite:
		return t.write(r, res)
	case wire.OpFsync:
		return t.fsync(r)
	case wire.OpFallocate:
		return t.fallocate(r, res)
	case wire.OpSeek:
		return t.seek(r, res)
	case wire.OpCopy:
		return t.copy(r, res)
	case wire.OpStatfs:
		return t.statfs(r, res)
	case wire.OpGetxattr, wire.OpSetxattr, wire.OpListxattr, wire.OpRemovexattr:
		return t.xattr(r, res)
	case wire.OpPing:
		return nil
	}
	return fmt.Errorf("operation %d: %w", r.Op, unix.ENOSYS)
}

func (t *tree) lookup(r *wire.Request, res *wire.Response) error {
	watched := t.watch(r.Path)
	return t.in(r.Path, r.Name, func(dir int) (err error) {
		if watched {
			res.Value = 1 // that a name is not there may be believed, too
		}
		if res.Attr, err = t.attrOf(dir, r.Name); err != nil {
			return err
		}
		t.watched(&res.Attr, t.watchedEntry(r.Path, r.Name, &res.Attr, watched))
		return nil
	})
}

// watchedEntry says whether changes of an entry of a folder will be heard of: of a folder's by watching that, of a file's by watching where it is.
func (t *tree) watchedEntry(dir, name string, a *wire.Attr, dirWatched bool) bool {
	if a.Mode&wire.TypeMask == wire.TypeFolder {
		return t.watch(join(dir, name)) && dirWatched
	}
	return dirWatched
}

func (t *tree) getattr(r *wire.Request, res *wire.Response) error {
	h, err := t.find(r.Path, r.Ident)
	if err != nil {
		return err
	}
	defer h.close()
	if res.Attr, err = t.attrOf(h.fd, ""); err != nil {
		return err
	}
	folder := r.Path
	if res.Attr.Mode&wire.TypeMask != wire.TypeFolder {
		folder = r.Path[:max(0, strings.LastIndexByte(r.Path, '/'))]
	}
	t.watched(&res.Attr, t.watch(folder))
	return nil
}

func (t *tree) readlink(r *wire.Request, res *wire.Response) error {
	h, err := t.find(r.Path, r.Ident)
	if err != nil {
		return err
	}
	defer h.close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(h.fd, "", buf)
	if err != nil {
		return err
	}
	res.Data = buf[:n]
	return nil
}

func (t *tree) statfs(r *wire.Request, res *wire.Response) error {
	h, err := t.find(r.Path, 0)
	if err != nil {
		return err
	}
	defer h.close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(h.fd, &st); err != nil {
		return err
	}
	s := wire.Statfs{Bsize: uint64(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail, Files: st.Files, FilesFree: st.Ffree, NameLen: uint64(st.Namelen)}
	res.Data = s.Append(nil)
	return nil
}

// forget lets go of a file that was kept for the guest's sake.
func (t *tree) forget(r *wire.Request) {
	if r.Ident != 0 && t.files.drop(r.Ident) {
		t.aside.drop(r.Ident)
	}
	if t.watcher != nil && r.Flags&wire.FlagSubtree != 0 {
		t.watcher.Forget(r.Path)
	}
}
