// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !linux || osroot

package share

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// descriptor is an open file.
type descriptor struct{ *os.File }

func (d descriptor) close() { _ = d.Close() }

// forReading: these systems open files by their names alone.
func (d descriptor) forReading() (descriptor, bool) { return descriptor{}, false }

// tree is a folder of the host's, by way of os.Root, which lets no path lead out of it. It owns all that it makes: owners and modes of the machine's are kept aside.
// Tests on Linux build it with the tag osroot.
type tree struct {
	root    *os.Root
	owners  bool // false: for other systems' owners nobody in the machine has a use
	watcher Watcher
	files   *files
	aside   *aside
	// readOnly is the server's business: nothing is changed here in order to read.
	readOnly bool
}

func openTree(folder, state string) (*tree, error) {
	kept, err := openAside(state)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	return &tree{root: root, files: newFiles(), aside: kept}, nil
}

func (t *tree) close() error {
	t.files.close()
	return errors.Join(t.root.Close(), t.aside.close())
}

// numbered is an error with Linux's number.
type numbered uint16

func (n numbered) Error() string { return fmt.Sprintf("error %d", uint16(n)) }

// errno is an error's number for the guest.
func errno(err error) uint16 {
	var n numbered
	switch {
	case errors.As(err, &n):
		return uint16(n)
	case errors.Is(err, fs.ErrNotExist):
		return wire.ENOENT
	case errors.Is(err, fs.ErrExist):
		return wire.EEXIST
	case errors.Is(err, fs.ErrPermission):
		return wire.EACCES
	}
	return systemErrno(err)
}

// local is a path of the guest's as os.Root takes it.
func local(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// entry is the path of a name in a folder, where that is allowed as a name.
func (t *tree) entry(dir, name string) (string, error) {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"), !nameAllowed(name):
		return "", numbered(wire.EINVAL)
	case len(name) > wire.MaxName:
		return "", numbered(wire.ENAMETOOLONG)
	}
	return join(dir, name), nil
}

// attrAt are the attributes of what is at a path.
func (t *tree) attrAt(p string) (wire.Attr, error) {
	info, err := t.root.Lstat(local(p))
	if err != nil {
		return wire.Attr{}, err
	}
	return t.attrOf(p, info), nil
}

func (t *tree) attrOf(p string, info fs.FileInfo) wire.Attr {
	a := wire.Attr{
		Size: uint64(info.Size()), Blocks: uint64(info.Size()+511) / 512, Mtime: info.ModTime().UnixNano(), Mode: linuxMode(info.Mode()), Nlink: 1,
		UID: 0, GID: 0,
	}
	if info.IsDir() {
		a.Nlink, a.Size = 2, 4096
	}
	a.Ctime, a.Atime = a.Mtime, a.Mtime
	systemAttr(p, info, &a)
	if o, ok := t.aside.get(a.Ident); ok {
		o.apply(&a)
	}
	return a
}

// linuxMode is a mode with Linux's bits.
func linuxMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	switch m.Type() {
	case fs.ModeDir:
		return mode | wire.TypeFolder
	case fs.ModeSymlink:
		return wire.TypeSymlink | 0o777
	case fs.ModeNamedPipe:
		return mode | wire.TypeFIFO
	case fs.ModeSocket:
		return mode | wire.TypeSocket
	case fs.ModeDevice:
		return mode | wire.TypeBlock
	case fs.ModeDevice | fs.ModeCharDevice:
		return mode | wire.TypeChar
	}
	return mode | wire.TypeRegular
}

func (t *tree) watch(p string) bool { return t.watcher != nil && t.watcher.Add(p) }

// mark notes that the guest may believe attributes until it hears otherwise.
func mark(a *wire.Attr, watched bool) {
	if watched {
		a.Flags |= wire.Watched
	}
}

// markEntry marks what is in a folder: a folder's changes are heard of by watching that, a file's by watching where it is.
func (t *tree) markEntry(p string, a *wire.Attr, watched bool) {
	if a.Mode&wire.TypeMask == wire.TypeFolder {
		watched = t.watch(p) && watched
	}
	mark(a, watched)
}

func (t *tree) rootAttr() (wire.Attr, error) {
	watched := t.watch("")
	a, err := t.attrAt("")
	mark(&a, watched)
	return a, err
}

// content opens a regular file, or gives the one that is open.
func (t *tree) content(p string, ident uint64, write bool) (*file, error) {
	if f := t.files.get(ident, write); f != nil {
		return f, nil
	}
	a, err := t.attrAt(p)
	switch {
	case err != nil:
		return nil, err
	case a.Mode&wire.TypeMask == wire.TypeFolder:
		return nil, numbered(wire.EISDIR)
	case ident != 0 && a.Ident != ident && stableIdentity:
		return nil, numbered(wire.ESTALE)
	}
	mode := os.O_RDONLY // what is open for writing cannot be run on the host
	if write {
		mode = os.O_RDWR
	}
	f, err := t.root.OpenFile(local(p), mode, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(numbered(wire.EINVAL), err, f.Close())
	}
	if write {
		return t.files.addWriter(a.Ident, descriptor{f}), nil
	}
	return t.files.add(a.Ident, descriptor{f}), nil
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
		to, err := t.root.Readlink(local(r.Path))
		res.Data = []byte(slashed(to))
		return err
	case wire.OpCreate, wire.OpMknod, wire.OpMkdir, wire.OpSymlink, wire.OpLink:
		return t.make(r, res)
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
	case wire.OpStatfs:
		s, err := systemStatfs(t.root)
		res.Data = s.Append(nil)
		return err
	case wire.OpListxattr, wire.OpPing:
		return nil
	case wire.OpGetxattr, wire.OpRemovexattr:
		return numbered(wire.ENODATA)
	}
	return numbered(wire.EOPNOTSUPP)
}

func (t *tree) lookup(r *wire.Request, res *wire.Response) error {
	watched := t.watch(r.Path)
	p, err := t.entry(r.Path, r.Name)
	if err != nil {
		return numbered(wire.ENOENT) // a name that cannot be is not there
	}
	if watched {
		res.Value = 1
	}
	if res.Attr, err = t.attrAt(p); err != nil {
		return err
	}
	if !t.sameCase(r.Path, r.Name) {
		return numbered(wire.ENOENT)
	}
	t.markEntry(p, &res.Attr, watched)
	return nil
}

// sameCase says that a name that was found is written so. The machine's programs expect names that differ in case to be different.
func (t *tree) sameCase(dir, name string) bool {
	if strings.ToLower(name) == strings.ToUpper(name) {
		return true // it has no letters
	}
	d, err := t.root.Open(local(dir))
	if err != nil {
		return true
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(pageNames)
		if slices.Contains(names, name) {
			return true
		}
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
	}
}

func (t *tree) getattr(r *wire.Request, res *wire.Response) (err error) {
	if f := t.files.get(r.Ident, false); f != nil {
		defer t.files.release(f)
		if info, err := f.fd.Stat(); err == nil {
			res.Attr = t.attrOf(r.Path, info)
			mark(&res.Attr, t.watch(parent(r.Path)))
			return nil
		}
	}
	if res.Attr, err = t.attrAt(r.Path); err != nil {
		return err
	}
	if stableIdentity && r.Ident != 0 && res.Attr.Ident != r.Ident {
		return numbered(wire.ESTALE)
	}
	folder := r.Path
	if res.Attr.Mode&wire.TypeMask != wire.TypeFolder {
		folder = parent(r.Path)
	}
	mark(&res.Attr, t.watch(folder))
	return nil
}

func parent(p string) string { return p[:max(0, strings.LastIndexByte(p, '/'))] }

// again gives a file's attributes after a change.
func (t *tree) again(r *wire.Request, res *wire.Response) error {
	return t.getattr(&wire.Request{Path: r.Path, Ident: r.Ident}, res)
}

// make makes a new name in a folder, in one of five ways.
func (t *tree) make(r *wire.Request, res *wire.Response) error {
	p, err := t.entry(r.Path, r.Name)
	if err != nil {
		return err
	}
	made, err := t.makeAt(p, r)
	if err != nil {
		return err
	}
	if res.Attr, err = t.attrAt(p); err != nil {
		return err
	}
	watched := t.watch(r.Path)
	t.markEntry(p, &res.Attr, watched)
	if !made {
		return nil
	}
	res.Parent, err = t.attrAt(r.Path)
	mark(&res.Parent, watched)
	return err
}

func (t *tree) makeAt(p string, r *wire.Request) (made bool, err error) {
	mode := r.Mode
	switch r.Op {
	case wire.OpCreate:
		return t.create(p, r)
	case wire.OpLink:
		return true, t.root.Link(local(r.Path2), p)
	case wire.OpMkdir:
		mode = wire.TypeFolder | r.Mode&0o7777
		err = t.root.Mkdir(p, 0o700|fs.FileMode(mode&0o777))
	case wire.OpSymlink:
		mode = wire.TypeSymlink | 0o777
		err = t.root.Symlink(string(r.Data), p)
	default: // a file stands for it
		var f *os.File
		if f, err = t.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return false, err
	}
	return true, t.claim(p, r, mode)
}

// claim gives a new file to who made it, with its mode.
func (t *tree) claim(p string, r *wire.Request, mode uint32) error {
	a, err := t.attrAt(p)
	if err != nil {
		return err
	}
	return t.keepOwner(p, a, owner{r.UID, r.GID, mode, r.Rdev()})
}

// keepOwner keeps what the machine set, if the file does not say so by itself.
func (t *tree) keepOwner(p string, a wire.Attr, want owner) error {
	if a.Mode&wire.TypeMask != wire.TypeSymlink && want.mode&0o7777 != a.Mode&0o7777 {
		if err := t.root.Chmod(p, fs.FileMode(hostMode(want.mode)).Perm()); err != nil {
			return err
		}
	}
	if want == (owner{a.UID, a.GID, a.Mode, a.Rdev}) {
		return nil
	}
	return t.aside.put(a.Ident, want)
}

// create makes a regular file with its first contents.
func (t *tree) create(p string, r *wire.Request) (made bool, err error) {
	f, err := t.root.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	made = err == nil
	if errors.Is(err, fs.ErrExist) && r.Flags&wire.FlagExclusive == 0 && t.sameCase(r.Path, r.Name) {
		flags := os.O_RDWR
		if r.Flags&wire.FlagTruncate != 0 {
			flags |= os.O_TRUNC
		}
		if r.Flags&wire.FlagAgain != 0 {
			return false, t.madeBefore(p, r)
		}
		f, err = t.root.OpenFile(p, flags, 0)
	}
	if err != nil {
		return false, err
	}
	if made {
		err = t.claim(p, r, wire.TypeRegular|r.Mode&0o7777)
	}
	if err == nil && len(r.Data) > 0 {
		_, err = f.WriteAt(r.Data, int64(r.Offset))
	}
	if err != nil {
		return false, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	return made, t.setattrAt(p, &wire.Request{Valid: r.Valid, OwnerUID: r.OwnerUID, OwnerGID: r.OwnerGID, Atime: r.Atime, Mtime: r.Mtime})
}

// madeBefore says whether a file is the one that a request made which is repeated.
func (t *tree) madeBefore(p string, r *wire.Request) error {
	f, err := t.root.Open(p)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err == nil && !(info.Mode().IsRegular() && holds(f, uint64(info.Size()), r)) {
		err = fs.ErrExist
	}
	return err
}

func (t *tree) remove(r *wire.Request, res *wire.Response) error {
	p, err := t.entry(r.Path, r.Name)
	if err != nil {
		return err
	}
	a, err := t.attrAt(p)
	folder := a.Mode&wire.TypeMask == wire.TypeFolder
	switch {
	case err != nil:
		return err
	case folder && r.Op == wire.OpUnlink:
		return numbered(wire.EISDIR)
	case !folder && r.Op == wire.OpRmdir:
		return numbered(wire.ENOTDIR)
	}
	release := t.release(p, &a)
	err = t.root.Remove(p)
	release(err == nil)
	if err != nil {
		return err
	}
	if res.Parent, err = t.attrAt(r.Path); err == nil {
		mark(&res.Parent, t.watch(r.Path))
	}
	return err
}

// release prepares for a file's losing its last name: it stays open for programs that use it, where the system allows that. The function it returns hears whether
// the name is gone.
func (t *tree) release(p string, a *wire.Attr) func(gone bool) {
	folder := a.Mode&wire.TypeMask == wire.TypeFolder
	if !folder && a.Nlink > 1 {
		return func(bool) {}
	}
	forget := func(gone bool) {
		if gone {
			t.aside.drop(a.Ident)
		}
	}
	if !stableIdentity {
		t.files.drop(a.Ident) // an open file cannot be removed
	}
	if !stableIdentity || a.Mode&wire.TypeMask != wire.TypeRegular {
		return forget
	}
	f, err := t.content(p, a.Ident, true) // who has it open may write to it yet
	if err != nil {
		f, err = t.content(p, a.Ident, false)
	}
	if err != nil {
		return forget
	}
	return func(gone bool) {
		if gone {
			t.files.pin(f)
		}
		t.files.release(f)
	}
}

func (t *tree) rename(r *wire.Request, res *wire.Response) error {
	from, err := t.entry(r.Path, r.Name)
	if err != nil {
		return err
	}
	to, err := t.entry(r.Path2, r.Name2)
	if err != nil {
		return err
	}
	if r.Flags&wire.FlagExchange != 0 {
		return numbered(wire.EINVAL)
	}
	before, err := t.attrAt(from)
	if err != nil {
		return err
	}
	release := func(bool) {}
	if a, err := t.attrAt(to); err == nil {
		if r.Flags&wire.FlagNoReplace != 0 {
			return numbered(wire.EEXIST)
		}
		if a.Ident != before.Ident {
			release = t.release(to, &a)
		}
	}
	if !stableIdentity {
		t.files.drop(before.Ident)
	}
	err = t.root.Rename(from, to)
	release(err == nil)
	if err != nil {
		return err
	}
	t.carryOwner(before.Ident, to)
	if res.Parent, err = t.attrAt(r.Path); err != nil {
		return err
	}
	mark(&res.Parent, t.watch(r.Path))
	res.Attr, err = t.attrAt(r.Path2)
	mark(&res.Attr, t.watch(r.Path2))
	return err
}

// carryOwner keeps what was set of a file that has another identity under its new name.
func (t *tree) carryOwner(old uint64, p string) {
	if o, ok := t.aside.get(old); ok && !stableIdentity {
		if a, err := t.attrAt(p); err == nil && a.Ident != old {
			_ = t.aside.put(a.Ident, o) // it has the system's owner otherwise
			t.aside.drop(old)
		}
	}
}

func (t *tree) setattr(r *wire.Request, res *wire.Response) error {
	if r.Valid&wire.SetSize != 0 {
		f, err := t.content(r.Path, r.Ident, true)
		if err != nil {
			return err
		}
		err = f.fd.Truncate(int64(r.Size))
		t.files.release(f)
		if err != nil {
			return err
		}
	}
	if err := t.setattrAt(r.Path, r); err != nil {
		return err
	}
	return t.again(r, res)
}

// setattrAt sets owner, mode and times.
func (t *tree) setattrAt(p string, r *wire.Request) error {
	a, err := t.attrAt(p)
	if err != nil {
		return err
	}
	if r.Valid&(wire.SetMode|wire.SetUID|wire.SetGID|wire.KillSUID) != 0 {
		if err := t.keepOwner(p, a, wanted(a, r)); err != nil {
			return err
		}
	}
	if r.Valid&(wire.SetAtime|wire.SetMtime|wire.SetAtimeNow|wire.SetMtimeNow) == 0 || a.Mode&wire.TypeMask == wire.TypeSymlink {
		return nil
	}
	pick := func(set, now uint32, at, old int64) time.Time {
		switch {
		case r.Valid&now != 0:
			return time.Now()
		case r.Valid&set != 0:
			return time.Unix(0, at)
		}
		return time.Unix(0, old)
	}
	return t.root.Chtimes(local(p), pick(wire.SetAtime, wire.SetAtimeNow, r.Atime, a.Atime), pick(wire.SetMtime, wire.SetMtimeNow, r.Mtime, a.Mtime))
}

func (t *tree) read(r *wire.Request, res *wire.Response) error {
	f, err := t.content(r.Path, r.Ident, false)
	if err != nil {
		return err
	}
	defer t.files.release(f)
	buf := make([]byte, min(r.Size, wire.MaxData))
	n, err := f.fd.ReadAt(buf, int64(r.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	res.Data = buf[:n]
	return nil
}

func (t *tree) write(r *wire.Request, res *wire.Response) error {
	f, err := t.content(r.Path, r.Ident, true)
	if err != nil {
		return err
	}
	defer t.files.release(f)
	at := int64(r.Offset)
	if r.Flags&wire.FlagAppend != 0 {
		info, err := f.fd.Stat()
		if err != nil {
			return err
		}
		at = info.Size()
	}
	if _, err := f.fd.WriteAt(r.Data, at); err != nil {
		return err
	}
	res.Value = uint64(at) + uint64(len(r.Data))
	if r.Flags&wire.FlagKillSUID != 0 {
		if err := t.setattrAt(r.Path, &wire.Request{Valid: wire.KillSUID}); err != nil {
			return err
		}
	}
	return t.again(r, res)
}

func (t *tree) fsync(r *wire.Request) error {
	f, err := t.content(r.Path, r.Ident, true)
	if err != nil {
		if errno(err) == wire.EISDIR || errno(err) == wire.EACCES {
			return nil // folders are the system's to write, and so is what cannot have been changed
		}
		return err
	}
	defer t.files.release(f)
	return f.fd.Sync()
}

func (t *tree) fallocate(r *wire.Request, res *wire.Response) error {
	if r.Flags != 0 {
		return numbered(wire.EOPNOTSUPP) // holes and the like
	}
	f, err := t.content(r.Path, r.Ident, true)
	if err != nil {
		return err
	}
	defer t.files.release(f)
	info, err := f.fd.Stat()
	if err != nil {
		return err
	}
	if end := int64(r.Offset + r.Size); end > info.Size() {
		if err := f.fd.Truncate(end); err != nil {
			return err
		}
	}
	return t.again(r, res)
}

// seek knows no holes: all is data, up to the hole at the end.
func (t *tree) seek(r *wire.Request, res *wire.Response) error {
	const seekData, seekHole, noSuch = 3, 4, 6
	a, err := t.attrAt(r.Path)
	switch {
	case err != nil:
		return err
	case r.Offset >= a.Size:
		return numbered(noSuch)
	case r.Flags == seekData:
		res.Value = r.Offset
	case r.Flags == seekHole:
		res.Value = a.Size
	default:
		return numbered(wire.EINVAL)
	}
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

// entries lists a folder: begin is called with its own attributes as they were before, then each for what is in it. A limit of 0 is none.
func (t *tree) entries(p string, watched bool, limit int, begin func(wire.Attr), each func(wire.Entry)) error {
	self, err := t.attrAt(p)
	if err != nil {
		return err
	}
	d, err := t.root.Open(local(p))
	if err != nil {
		return err
	}
	defer d.Close()
	begin(self)
	return pages(d, limit, func(name string) {
		a, err := t.attrAt(path.Join(p, name))
		if err != nil {
			return // gone meanwhile
		}
		t.markEntry(join(p, name), &a, watched)
		each(wire.Entry{Name: name, Attr: a})
	})
}
