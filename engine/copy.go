// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	goarchive "github.com/moby/go-archive"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// CopyOptions say how files are copied between a container and this computer.
type CopyOptions struct {
	// FollowLink copies what a symbolic link at the source leads to, not the link.
	FollowLink bool
	// ToUser gives files that go into a container to the user that it runs as; without it they keep the numbers of their owner and group.
	ToUser bool
}

// CopyTo copies the file or folder src of this computer, an absolute path, into a container, running or not, with the rules of cp: a folder goes
// into a folder that is there, or becomes one; "src/." is its contents only. The container needs no shell or tar.
func (c *Client) CopyTo(ctx context.Context, containerID, src, dst string, o CopyOptions) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	to, err := c.destination(ctx, api, containerID, dst)
	if err != nil {
		return err
	}
	from, err := goarchive.CopyInfoSourcePath(src, o.FollowLink)
	if err != nil {
		return fmt.Errorf("copy %q: %w", src, withoutPath(err))
	}
	content, err := goarchive.TarResource(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", src, withoutPath(err))
	}
	defer content.Close()
	folder, prepared, err := goarchive.PrepareArchiveCopy(content, from, to)
	if err != nil {
		return copyError(err, dst)
	}
	defer prepared.Close()
	return c.unpack(ctx, api, containerID, folder, prepared, o)
}

// CopyArchiveTo unpacks a tar archive in a folder of a container.
func (c *Client) CopyArchiveTo(ctx context.Context, containerID string, content io.Reader, dst string, o CopyOptions) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	to, err := c.destination(ctx, api, containerID, dst)
	if err != nil {
		return err
	}
	if !to.IsDir {
		return fmt.Errorf("%q is not a folder in the container: an archive needs one", dst)
	}
	return c.unpack(ctx, api, containerID, to.Path, content, o)
}

func (c *Client) unpack(ctx context.Context, api *client.Client, containerID, folder string, content io.Reader, o CopyOptions) error {
	_, err := api.CopyToContainer(ctx, containerID, client.CopyToContainerOptions{DestinationPath: folder, Content: content, CopyUIDGID: o.ToUser})
	if gone(err) {
		return fmt.Errorf("there is no folder %q in the container", filepath.ToSlash(folder))
	}
	return c.explain(err)
}

// destination looks at where files are to go in a container. That nothing is there is no error.
func (c *Client) destination(ctx context.Context, api *client.Client, containerID, dst string) (goarchive.CopyInfo, error) {
	to := goarchive.CopyInfo{Path: dst}
	s, found, err := c.stat(ctx, api, containerID, dst)
	if err != nil || !found {
		return to, err
	}
	if s.Mode&os.ModeSymlink != 0 {
		to.Path = linkTarget(dst, s)
		if s, found, err = c.stat(ctx, api, containerID, to.Path); err != nil || !found {
			return to, err
		}
	}
	if s.Mode&(os.ModeDevice|os.ModeIrregular) != 0 {
		return to, fmt.Errorf("%q is neither a file nor a folder in the container", dst)
	}
	to.Exists, to.IsDir = true, s.Mode.IsDir()
	return to, nil
}

func (c *Client) stat(ctx context.Context, api *client.Client, containerID, name string) (s container.PathStat, found bool, err error) {
	r, err := api.ContainerStatPath(ctx, containerID, client.ContainerStatPathOptions{Path: name})
	if gone(err) {
		return s, false, nil
	}
	return r.Stat, err == nil, c.explain(err)
}

// linkTarget is where a symbolic link in a container leads to.
func linkTarget(name string, s container.PathStat) string {
	if path.IsAbs(s.LinkTarget) {
		return s.LinkTarget
	}
	return path.Join(path.Dir(name), s.LinkTarget)
}

// CopyFrom copies a file or folder of a container to dst on this computer, an absolute path, with the rules of cp.
func (c *Client) CopyFrom(ctx context.Context, containerID, src, dst string, o CopyOptions) error {
	return c.readArchive(ctx, containerID, src, o, func(content io.Reader, from goarchive.CopyInfo) error {
		if from.RebaseName != "" {
			_, base := goarchive.SplitPathDirEntry(from.Path)
			rebased := goarchive.RebaseArchiveEntries(content, base, from.RebaseName)
			defer rebased.Close()
			content = rebased
		}
		return copyError(goarchive.CopyTo(content, from, dst), dst)
	})
}

// CopyArchiveFrom writes a file or folder of a container to w as a tar archive.
func (c *Client) CopyArchiveFrom(ctx context.Context, containerID, src string, w io.Writer, o CopyOptions) error {
	return c.readArchive(ctx, containerID, src, o, func(content io.Reader, _ goarchive.CopyInfo) error {
		if _, err := io.Copy(w, content); err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		return nil
	})
}

// readArchive gives f an archive of a file or folder in a container.
func (c *Client) readArchive(ctx context.Context, containerID, src string, o CopyOptions, f func(io.Reader, goarchive.CopyInfo) error) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	from := goarchive.CopyInfo{Path: src, Exists: true}
	if o.FollowLink {
		s, found, err := c.stat(ctx, api, containerID, src)
		if err != nil {
			return err
		}
		if found && s.Mode&os.ModeSymlink != 0 {
			from.Path, from.RebaseName = goarchive.GetRebaseName(src, linkTarget(src, s))
		}
	}
	r, err := api.CopyFromContainer(ctx, containerID, client.CopyFromContainerOptions{SourcePath: from.Path})
	if gone(err) {
		return fmt.Errorf("there is no %q in the container", src)
	}
	if err != nil {
		return c.explain(err)
	}
	defer r.Content.Close()
	from.IsDir = r.Stat.Mode.IsDir()
	return f(r.Content, from)
}

// copyError says in the user's terms why what is copied does not fit where it is to go.
func copyError(err error, dst string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, goarchive.ErrCannotCopyDir):
		return fmt.Errorf("%q is a file: a folder cannot be copied onto it", dst)
	case errors.Is(err, goarchive.ErrDirNotExists), errors.Is(err, goarchive.ErrNotDirectory):
		return fmt.Errorf("%q is not a folder that is there", dst)
	}
	return fmt.Errorf("write %q: %w", dst, withoutPath(err))
}

// withoutPath leaves out the operation and path of a file error, which the message around it names.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
