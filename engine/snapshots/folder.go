// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// A volume whose folder this process can reach need not go through the engine: it is read as it lies there, extended attributes and all, and where the
// file system can share blocks between files (btrfs, XFS) it is cloned: that takes an instant and no space. A clone is kept as a folder, trees/<digest>;
// its digest is that of the archive of it, so that it stands for the same content wherever an archive is asked for.

// archiveFolder is the name of the volume in archives, as in those of the engine.
const archiveFolder = "volume"

// xattrRecord begins the names of PAX records with extended attributes.
const xattrRecord = "SCHILY.xattr."

// Archive writes a folder as a tar archive of one folder, "volume", in a stable order: with owners, modes, times, links, devices and extended attributes;
// sockets are left out. Nothing outside of the folder is read, whatever its links say.
func Archive(ctx context.Context, dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	defer root.Close()
	a := &archiver{ctx: ctx, root: root, w: tar.NewWriter(w), links: map[inode]string{}}
	if err := fs.WalkDir(root.FS(), ".", a.add); err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	return a.w.Close()
}

// inode identifies a file, whatever its names.
type inode struct{ device, number uint64 }

type archiver struct {
	ctx   context.Context
	root  *os.Root
	w     *tar.Writer
	links map[inode]string // the first names of files that have several
}

// add adds a file. One that is gone meanwhile, where nothing keeps others from writing, is left out.
func (a *archiver) add(name string, _ fs.DirEntry, err error) error {
	if err == nil {
		err = a.ctx.Err()
	}
	if err == nil {
		err = a.put(name)
	}
	if name != "." && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (a *archiver) put(name string) error {
	info, err := a.root.Lstat(name)
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	h, err := a.header(name, info)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return a.w.WriteHeader(h)
	}
	f, err := openInside(a.root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	attributes, err := xattrs(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for key, value := range attributes {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+key] = value
	}
	if err := a.w.WriteHeader(h); err != nil || h.Typeflag == tar.TypeDir {
		return err
	}
	n, err := io.CopyN(a.w, &contextReader{a.ctx, f}, h.Size)
	if errors.Is(err, io.EOF) { // it has become shorter meanwhile
		_, err = io.CopyN(a.w, zeros{}, h.Size-n)
	}
	return err
}

// zeros reads as zeros without end.
type zeros struct{}

// Read fills p.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (a *archiver) header(name string, info fs.FileInfo) (*tar.Header, error) {
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = a.root.Readlink(name); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, err
	}
	h.Name = path.Join(archiveFolder, name)
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Format = tar.FormatPAX
	id, several := identity(info)
	if several && info.Mode().IsRegular() {
		if first, seen := a.links[id]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			a.links[id] = h.Name
		}
	}
	return h, nil
}

// Clone is a folder whose files share their blocks with those of the volume that it was made of, on the way to being stored.
type Clone struct {
	store Store
	path  string
}

// Clone clones a folder into the store. errors.ErrUnsupported: the two do not lie on a file system that can. It is called within [Store.Saving]; the clone
// is for [Clone.Keep] or [Clone.Discard].
func (s Store) Clone(ctx context.Context, dir string) (*Clone, error) {
	if err := os.MkdirAll(s.trees(), 0o700); err != nil {
		return nil, fmt.Errorf("store content: %w", err)
	}
	tmp, err := os.MkdirTemp(s.trees(), tmpPrefix)
	if err != nil {
		return nil, fmt.Errorf("store content: %w", err)
	}
	if err := cloneFolder(ctx, filepath.Join(tmp, archiveFolder), dir); err != nil {
		return nil, errors.Join(fmt.Errorf("store content: %w", err), os.RemoveAll(tmp))
	}
	return &Clone{s, tmp}, nil
}

// Keep stores the clone under the digest of its content, which is read for that.
func (c *Clone) Keep(ctx context.Context) (b Blob, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(c.path)) }()
	sum := sha256.New()
	size := &counter{w: sum}
	if err := Archive(ctx, filepath.Join(c.path, archiveFolder), size); err != nil {
		return b, err
	}
	b = Blob{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size.n}
	if c.store.has(b.Digest) {
		return b, nil
	}
	err = syncFolder(c.path)
	if err == nil {
		err = os.Rename(c.path, c.store.tree(b.Digest))
	}
	if err == nil {
		err = atomicfile.SyncDir(c.store.trees())
	}
	if err != nil {
		return b, fmt.Errorf("store content: %w", err)
	}
	return b, nil
}

// Discard removes the clone.
func (c *Clone) Discard() error { return os.RemoveAll(c.path) }

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Fill clones stored content into an empty folder. errors.ErrUnsupported: it is not stored as a folder, or not where files can share blocks; the folder is
// as it was then.
func (s Store) Fill(ctx context.Context, digest, dir string) error {
	tree := filepath.Join(s.tree(digest), archiveFolder)
	if _, err := os.Stat(tree); err != nil {
		return fmt.Errorf("clone content: %w", errors.ErrUnsupported)
	}
	return CloneFolder(ctx, dir, tree)
}

// CloneFolder makes an empty folder the same as another one, their files sharing blocks. errors.ErrUnsupported: they cannot; the folder is as it was then.
func CloneFolder(ctx context.Context, dst, src string) error {
	if err := canClone(dst, src); err != nil {
		return err
	}
	return cloneFolder(ctx, dst, src)
}

func (s Store) trees() string { return filepath.Join(s.Dir, "trees") }

func (s Store) tree(digest string) string {
	return filepath.Join(s.trees(), filepath.Base("x" + digest)[len("xsha256:"):])
}

// has reports whether content is stored, in whatever form.
func (s Store) has(digest string) bool {
	_, blobErr := os.Stat(s.blob(digest))
	_, treeErr := os.Stat(s.tree(digest))
	return blobErr == nil || treeErr == nil
}

// treeReader gives the archive of a stored folder, checked against its digest.
type treeReader struct {
	*io.PipeReader
	done   chan struct{}
	cancel context.CancelFunc
}

// openTree reads a stored folder as an archive.
func (s Store) openTree(digest string) io.ReadCloser {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	t := &treeReader{PipeReader: r, done: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(t.done)
		sum := sha256.New()
		err := Archive(ctx, filepath.Join(s.tree(digest), archiveFolder), io.MultiWriter(w, sum))
		if err == nil && "sha256:"+hex.EncodeToString(sum.Sum(nil)) != digest {
			err = &CorruptError{digest}
		}
		w.CloseWithError(err)
	}()
	return t
}

// Close ends the reading of the folder.
func (t *treeReader) Close() error {
	t.cancel()
	err := t.PipeReader.Close()
	<-t.done
	return err
}

// sortedNames are the names of attributes in a stable order.
func sortedNames(attributes map[string]string) []string { return slices.Sorted(maps.Keys(attributes)) }
