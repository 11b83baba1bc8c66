// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build !osroot

package share

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

func (t *tree) read(r *wire.Request, res *wire.Response) error {
	h, err := t.content(r.Path, r.Ident, false)
	if err != nil {
		return err
	}
	defer h.close()
	buf := make([]byte, min(r.Size, wire.MaxData))
	n := 0
	for n < len(buf) {
		k, err := unix.Pread(h.fd, buf[n:], int64(r.Offset)+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if k == 0 {
			break
		}
		n += k
	}
	res.Data = buf[:n]
	return nil
}

func (t *tree) write(r *wire.Request, res *wire.Response) error {
	h, err := t.content(r.Path, r.Ident, true)
	if err != nil {
		return err
	}
	defer h.close()
	at := int64(r.Offset)
	if r.Flags&wire.FlagAppend != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(h.fd, &st); err != nil {
			return err
		}
		at = st.Size
	}
	if at, err = writeAll(h.fd, r.Data, at); err != nil {
		return err
	}
	if r.Flags&wire.FlagKillSUID != 0 {
		if err := t.setOwner(h.fd, &wire.Request{Valid: wire.KillSUID}); err != nil {
			return err
		}
	}
	res.Value = uint64(at)
	return t.after(h, r, res)
}

// writeAll writes all of data and returns where it ends.
func writeAll(fd int, data []byte, at int64) (int64, error) {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return at, err
		}
		data, at = data[n:], at+int64(n)
	}
	return at, nil
}

// after gives a file's attributes once its contents were changed.
func (t *tree) after(h handle, r *wire.Request, res *wire.Response) (err error) {
	if res.Attr, err = t.attrOf(h.fd, ""); err == nil {
		t.watched(&res.Attr, t.watch(folderOf(r.Path, &res.Attr)))
	}
	return err
}

// folderOf is the folder to watch for changes of what is at a path.
func folderOf(path string, a *wire.Attr) string {
	if a.Mode&wire.TypeMask == wire.TypeFolder {
		return path
	}
	return path[:max(0, strings.LastIndexByte(path, '/'))]
}

func (t *tree) fsync(r *wire.Request) error {
	h, err := t.content(r.Path, r.Ident, false)
	if errors.Is(err, unix.EISDIR) {
		return t.fsyncFolder(r.Path)
	}
	if err != nil {
		return err
	}
	defer h.close()
	if r.Flags&wire.FlagDataOnly != 0 {
		return unix.Fdatasync(h.fd)
	}
	return unix.Fsync(h.fd)
}

func (t *tree) fsyncFolder(path string) error {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

func (t *tree) fallocate(r *wire.Request, res *wire.Response) error {
	h, err := t.content(r.Path, r.Ident, true)
	if err != nil {
		return err
	}
	defer h.close()
	if err := unix.Fallocate(h.fd, r.Flags, int64(r.Offset), int64(r.Size)); err != nil {
		return err
	}
	return t.after(h, r, res)
}

func (t *tree) seek(r *wire.Request, res *wire.Response) error {
	h, err := t.content(r.Path, r.Ident, false)
	if err != nil {
		return err
	}
	defer h.close()
	if r.Flags != unix.SEEK_DATA && r.Flags != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	at, err := unix.Seek(h.fd, int64(r.Offset), int(r.Flags))
	res.Value = uint64(at)
	return err
}

// copy copies between files of the share without the guest's help; the host's file system may share the blocks.
func (t *tree) copy(r *wire.Request, res *wire.Response) error {
	from, err := t.content(r.Path, r.Ident, false)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := t.content(r.Path2, r.Ident2, true)
	if err != nil {
		return err
	}
	defer to.close()
	in, out := int64(r.Offset), int64(r.Offset2)
	n, err := unix.CopyFileRange(from.fd, &in, to.fd, &out, int(min(r.Size, 1<<30)), 0)
	if err != nil {
		return err
	}
	res.Value = uint64(n)
	return t.after(to, &wire.Request{Path: r.Path2}, res)
}

// hidden says that an extended attribute is not the guest's to see.
func (t *tree) hidden(name string) bool {
	return !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.dev.")
}

func (t *tree) xattr(r *wire.Request, res *wire.Response) error {
	h, err := t.find(r.Path, r.Ident)
	if err != nil {
		return err
	}
	defer h.close()
	path := procPath(h.fd)
	if r.Op == wire.OpListxattr {
		res.Data, err = t.listXattr(path)
		return err
	}
	if t.hidden(r.Name) {
		return unix.EOPNOTSUPP
	}
	switch r.Op {
	case wire.OpGetxattr:
		buf := make([]byte, 64<<10)
		n, err := unix.Getxattr(path, r.Name, buf)
		if err != nil {
			return err
		}
		res.Data = buf[:n]
		return nil
	case wire.OpSetxattr:
		err = unix.Setxattr(path, r.Name, r.Data, int(r.Flags))
	default:
		err = unix.Removexattr(path, r.Name)
	}
	if err != nil {
		return err
	}
	return t.after(h, r, res)
}

func (t *tree) listXattr(path string) ([]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		return nil, err
	}
	var names []byte
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name != "" && !t.hidden(name) {
			names = append(append(names, name...), 0)
		}
	}
	return names, nil
}

// entries lists a folder: begin is called with its own attributes as they were before, then each for what is in it. A limit of 0 is none.
func (t *tree) entries(path string, watched bool, limit int, begin func(wire.Attr), each func(wire.Entry)) error {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	self, err := t.attrOf(fd, "")
	if err != nil {
		return err
	}
	begin(self)
	return pages(f, limit, func(name string) {
		a, err := t.attrOf(fd, name)
		if err != nil {
			return // gone meanwhile
		}
		t.watched(&a, t.watchedEntry(path, name, &a, watched))
		each(wire.Entry{Name: name, Attr: a})
	})
}

// bytesOf reads an open file.
type bytesOf int

func (fd bytesOf) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		k, err := unix.Pread(int(fd), p[n:], offset+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, err
		case k == 0:
			return n, io.EOF
		}
		n += k
	}
	return n, nil
}
