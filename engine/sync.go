// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

// Owner is who files in a container belong to, as numbers.
type Owner struct {
	UID, GID int
}

// SyncOptions say what is to change in the files of a container.
type SyncOptions struct {
	// Remove are paths in the container to delete, with all below them; what is not there is no error. They go before Copy comes.
	Remove []string
	// Copy are files, symbolic links and folders of the host to put into the container, all in one archive. Those that are gone by then are left out.
	Copy []compose.WatchCopy
	// Owner is whom they shall belong to; see [Client.ContainerOwner].
	Owner Owner
}

// SyncFiles changes files of a container through the engine's archive API, so that the container needs neither a shell nor a user who may write. Modes
// and times are the host's. Folders on the way are made as needed.
func (c *Client) SyncFiles(ctx context.Context, containerID string, o SyncOptions) error {
	api, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if err := c.removeFiles(ctx, api, containerID, o.Remove); err != nil {
		return err
	}
	if len(o.Copy) == 0 {
		return nil
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		b := bufio.NewWriterSize(w, 256<<10)
		unread, err := writeArchive(b, o.Copy, o.Owner)
		_ = w.CloseWithError(errors.Join(err, b.Flush()))
		packed <- unread
	}()
	_, err = api.CopyToContainer(ctx, containerID, client.CopyToContainerOptions{DestinationPath: "/", Content: r, AllowOverwriteDirWithFile: true})
	_ = r.Close() // the packer ends, whatever became of the call
	unread := <-packed
	if err != nil {
		return readOnly(c.explain(err))
	}
	return unread
}

// IsGone reports that an error is about a container that is not there any more.
func IsGone(err error) bool { return gone(err) }

// readOnly adds what to do about a container whose file system cannot be written.
func readOnly(err error) error {
	if says(err, "rootfs is marked read-only") {
		return withHint(fmt.Errorf("the container's file system is read-only: %w", err), "drop read_only: true, or mount the folder instead of syncing it")
	}
	return err
}

// writeArchive packs files of the host as a tar. What may not be read is left out and told in unread.
func writeArchive(w io.Writer, copies []compose.WatchCopy, owner Owner) (unread, err error) {
	tw := tar.NewWriter(w)
	for _, c := range copies {
		err := addFile(tw, c, owner)
		switch {
		case errors.Is(err, fs.ErrPermission):
			unread = errors.Join(unread, err)
		case err != nil:
			return unread, fmt.Errorf("pack %q: %w", c.From, err)
		}
	}
	return unread, tw.Close()
}

// addFile packs one file as it is now. What is gone, or is neither file, folder nor link, is left out.
func addFile(w *tar.Writer, c compose.WatchCopy, owner Owner) error {
	info, err := os.Lstat(c.From)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(c.From); err != nil {
			return err
		}
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = strings.TrimPrefix(c.To, "/")
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = owner.UID, owner.GID, "", ""
	if runtime.GOOS == "windows" {
		h.Mode |= 0o755 // Windows does not know; docker's builds do the same
	}
	if !info.Mode().IsRegular() {
		return w.WriteHeader(h)
	}
	return addContent(w, c.From, h)
}

// addContent packs a regular file. One that shrinks meanwhile is filled up, as a change of it will be told of again.
func addContent(w *tar.Writer, name string, h *tar.Header) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(w, f, h.Size)
	if errors.Is(err, io.EOF) {
		_, err = io.CopyN(w, zeros{}, h.Size-n)
	}
	return err
}

// zeros is an endless file of zeros.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
