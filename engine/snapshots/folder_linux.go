// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// identity is a file's, and whether it has several names.
func identity(info fs.FileInfo) (id inode, several bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return id, false
	}
	return inode{s.Dev, s.Ino}, s.Nlink > 1
}

// openInside opens a file or folder, and nothing that was put into its place meanwhile.
func openInside(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
}

// keptXattr reports whether an attribute is part of a volume's content: those of users, capabilities and access lists. Others are the system's own.
func keptXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
}

// xattrs are the extended attributes of a file that are kept.
func xattrs(f *os.File) (map[string]string, error) {
	fd := int(f.Fd())
	list := make([]byte, 64<<10) // the most that Linux gives
	n, err := unix.Flistxattr(fd, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var found map[string]string
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" || !keptXattr(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = string(value[:n])
	}
	return found, nil
}

// cloner makes a folder like another one.
type cloner struct {
	ctx   context.Context
	src   *os.Root
	dst   string
	links map[inode]string
	// folders get their times after what is in them.
	folders []func() error
}

// cloneFolder makes dst, which is empty or not there, the same as src, with the blocks of its files.
func cloneFolder(ctx context.Context, dst, src string) error {
	root, err := os.OpenRoot(src)
	if err != nil {
		return fmt.Errorf("clone volume: %w", err)
	}
	defer root.Close()
	c := &cloner{ctx: ctx, src: root, dst: dst, links: map[inode]string{}}
	if err := fs.WalkDir(root.FS(), ".", c.add); err != nil {
		return fmt.Errorf("clone volume: %w", err)
	}
	for i := len(c.folders) - 1; i >= 0; i-- {
		if err := c.folders[i](); err != nil {
			return fmt.Errorf("clone volume: %w", err)
		}
	}
	return nil
}

func (c *cloner) add(name string, _ fs.DirEntry, err error) error {
	if err == nil {
		err = c.ctx.Err()
	}
	if err == nil {
		err = c.put(name)
	}
	if gone := (*fs.PathError)(nil); name != "." && errors.As(err, &gone) && errors.Is(err, fs.ErrNotExist) && gone.Path == name {
		return nil // meanwhile, where nothing keeps others from writing
	}
	return err
}

func (c *cloner) put(name string) error {
	info, err := c.src.Lstat(name)
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	dst := filepath.Join(c.dst, name)
	switch mode := info.Mode(); {
	case mode.IsDir():
		return c.folder(name, dst, info)
	case mode.IsRegular():
		return c.file(name, dst, info)
	case mode&fs.ModeSymlink != 0:
		target, err := c.src.Readlink(name)
		if err == nil {
			err = os.Symlink(target, dst)
		}
		if err != nil {
			return err
		}
	default:
		s, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: unknown kind of file", name)
		}
		if err := unix.Mknod(dst, s.Mode, int(s.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: dst, Err: err}
		}
	}
	return own(dst, info)
}

func (c *cloner) folder(name, dst string, info fs.FileInfo) error {
	if err := os.Mkdir(dst, 0o700); err != nil && !(name == "." && errors.Is(err, fs.ErrExist)) {
		return err
	}
	f, err := openInside(c.src, name)
	if err != nil {
		return err
	}
	defer f.Close()
	attributes, err := xattrs(f)
	if err != nil {
		return err
	}
	c.folders = append(c.folders, func() error { return errors.Join(setXattrs(dst, attributes), own(dst, info)) })
	return nil
}

func (c *cloner) file(name, dst string, info fs.FileInfo) error {
	id, several := identity(info)
	if first, seen := c.links[id]; several && seen {
		return os.Link(first, dst)
	}
	in, err := openInside(c.src, name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
			return errors.Join(noClone(err), out.Close())
		}
	}
	attributes, err := xattrs(in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if several {
		c.links[id] = dst
	}
	if err := own(dst, info); err != nil {
		return err
	}
	if err := setXattrs(dst, attributes); err != nil { // after the owner, whose change takes capabilities away
		return err
	}
	return setTimes(dst, info)
}

// noClone says of the errors of a clone which mean that it cannot be.
func noClone(err error) error {
	for _, no := range []error{unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w (%w)", errors.ErrUnsupported, err)
		}
	}
	return err
}

// own gives a file the owner, mode and time of another.
func own(dst string, info fs.FileInfo) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: unknown owner", dst)
	}
	if err := os.Lchown(dst, int(s.Uid), int(s.Gid)); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := unix.Chmod(dst, s.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	return setTimes(dst, info)
}

func setTimes(dst string, info fs.FileInfo) error {
	t := unix.NsecToTimespec(info.ModTime().UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: dst, Err: err}
	}
	return nil
}

func setXattrs(dst string, attributes map[string]string) error {
	for _, name := range sortedNames(attributes) {
		if err := unix.Lsetxattr(dst, name, []byte(attributes[name]), 0); err != nil {
			return &os.PathError{Op: "set attribute " + name + " of", Path: dst, Err: err}
		}
	}
	return nil
}

// canClone tries whether files in dst can share blocks with those of src. It does so beside the folders, whose times are part of their content.
func canClone(dst, src string) (err error) {
	in, err := os.CreateTemp(filepath.Dir(src), tmpPrefix+"*")
	if err != nil {
		return noClone(err)
	}
	defer func() { err = errors.Join(err, in.Close(), os.Remove(in.Name())) }()
	if _, err := in.Write(make([]byte, 4096)); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(dst), tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close(), os.Remove(out.Name())) }()
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		return noClone(err)
	}
	return nil
}

// syncFolder puts all of a file system that a folder lies on on disk.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
