// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// Place is a path on this host or in a machine, as `scp` writes it: [[user@]machine:]path.
type Place struct {
	Machine, User string // empty Machine: this host
	Path          string
}

// ParsePlace reads a place. On Windows one letter before the colon is a drive, not a machine.
func ParsePlace(text, goos string) (Place, error) {
	before, after, found := strings.Cut(text, ":")
	local := !found || strings.ContainsAny(before, `/\`) || before == "" || goos == "windows" && len(before) == 1
	if local {
		if text == "" {
			return Place{}, errors.New("a path is empty")
		}
		return Place{Path: text}, nil
	}
	p := Place{Machine: before, Path: after}
	if user, machine, ok := strings.Cut(before, "@"); ok {
		p.User, p.Machine = user, machine
	}
	if p.Machine == "" {
		return Place{}, fmt.Errorf("read %q: no machine stands before the colon", text)
	}
	if p.Path == "" {
		p.Path = "."
	}
	return p, nil
}

// Tree is the files of this host or of a machine. Paths in it are joined with its own separator.
type Tree struct {
	files files
	join  func(...string) string
	base  func(string) string
	// takes says whether a name from another tree is the name of one file here, and not a way to somewhere else.
	takes func(name string) bool
}

// files are what copying needs of a file system.
type files interface {
	Stat(name string) (fs.FileInfo, error)
	ReadDir(name string) ([]fs.FileInfo, error)
	Open(name string) (io.ReadCloser, error)
	// Create makes or replaces a file that gets the mode and time of like once it is closed.
	Create(name string, like fs.FileInfo) (io.WriteCloser, error)
	MkdirAll(name string) error
}

// Host is this host's tree.
func Host() *Tree { return &Tree{hostFiles{}, filepath.Join, filepath.Base, isHostName} }

// isHostName refuses what leads out of a folder: what is a plain name in a machine may be a path, a drive or a device on Windows.
func isHostName(name string) bool {
	return filepath.IsLocal(name) && filepath.Base(name) == name && name != "."
}

func isGuestName(name string) bool {
	return path.Base(name) == name && name != "." && name != ".." && name != "/"
}

// Guest opens the tree of a machine. The caller closes it; the client stays open.
func Guest(c *ssh.Client) (t *Tree, closeTree func() error, err error) {
	client, err := sftp.NewClient(c, sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, nil, fmt.Errorf("open the machine's files: %w", err)
	}
	return &Tree{guestFiles{client}, path.Join, path.Base, isGuestName}, client.Close, nil
}

// place is where a file of another tree comes to lie in a folder of this one. A machine may say any name: none leads out of the folder.
func (t *Tree) place(folder, name string) (string, error) {
	if !t.takes(name) {
		return "", fmt.Errorf("%q cannot be a file's name in %q", name, folder)
	}
	return t.join(folder, name), nil
}

// CopyOptions say what to copy and whom to tell.
type CopyOptions struct {
	Recursive bool
	// Delta leaves out files that are there with the same size and time.
	Delta bool
	// File is told of each file once it is copied; may be nil.
	File func(name string, size int64)
}

// Copy copies a file or folder between trees, as cp does: into a target that is a folder, else to that name. What is there is replaced,
// and what else is in a target folder stays. Symbolic links are followed.
func Copy(ctx context.Context, from *Tree, source string, to *Tree, target string, o CopyOptions) error {
	info, err := from.files.Stat(source)
	if err != nil {
		return fmt.Errorf("copy %q: %w", source, err)
	}
	if info.IsDir() && !o.Recursive {
		return fmt.Errorf("copy %q: it is a folder: use -r", source)
	}
	there, err := to.files.Stat(target)
	switch {
	case err == nil && there.IsDir():
		if name := from.base(source); name != "." && name != ".." && name != string(filepath.Separator) && name != "/" {
			if target, err = to.place(target, name); err != nil {
				return fmt.Errorf("copy %q: %w", source, err)
			}
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("copy to %q: %w", target, err)
	case err != nil && (strings.HasSuffix(target, "/") || strings.HasSuffix(target, string(filepath.Separator))) && !info.IsDir():
		return fmt.Errorf("copy to %q: there is no such folder", target)
	}
	return copyAny(ctx, from, source, info, to, target, o)
}

func copyAny(ctx context.Context, from *Tree, source string, info fs.FileInfo, to *Tree, target string, o CopyOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return copyDir(ctx, from, source, to, target, o)
	case !info.Mode().IsRegular():
		return fmt.Errorf("copy %q: it is neither a file nor a folder", source)
	}
	if o.Delta {
		if have, err := to.files.Stat(target); err == nil && have.Size() == info.Size() && have.ModTime().Unix() == info.ModTime().Unix() {
			return nil
		}
	}
	if err := copyFile(ctx, from, source, info, to, target); err != nil {
		return err
	}
	if o.File != nil {
		o.File(source, info.Size())
	}
	return nil
}

func copyDir(ctx context.Context, from *Tree, source string, to *Tree, target string, o CopyOptions) error {
	if err := to.files.MkdirAll(target); err != nil {
		return fmt.Errorf("make folder %q: %w", target, err)
	}
	entries, err := from.files.ReadDir(source)
	if err != nil {
		return fmt.Errorf("read folder %q: %w", source, err)
	}
	for _, e := range entries {
		name := from.join(source, e.Name())
		inTarget, err := to.place(target, e.Name())
		if err != nil {
			return fmt.Errorf("copy %q: %w", name, err)
		}
		info, err := from.files.Stat(name) // follows a link
		if err != nil {
			return fmt.Errorf("copy %q: %w", name, err)
		}
		if err := copyAny(ctx, from, name, info, to, inTarget, o); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(ctx context.Context, from *Tree, source string, info fs.FileInfo, to *Tree, target string) (err error) {
	r, err := from.files.Open(source)
	if err != nil {
		return fmt.Errorf("copy %q: %w", source, err)
	}
	defer r.Close()                                          // it was only read
	defer context.AfterFunc(ctx, func() { _ = r.Close() })() // ends the copying
	w, err := to.files.Create(target, info)
	if err != nil {
		return fmt.Errorf("copy to %q: %w", target, err)
	}
	_, err = io.Copy(w, r)
	err = errors.Join(err, w.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("copy %q to %q: %w", source, target, err)
	}
	return nil
}

type hostFiles struct{}

func (hostFiles) Stat(name string) (fs.FileInfo, error)   { return os.Stat(name) }
func (hostFiles) Open(name string) (io.ReadCloser, error) { return os.Open(name) }
func (hostFiles) MkdirAll(name string) error              { return os.MkdirAll(name, 0o755) }
func (hostFiles) ReadDir(n string) ([]fs.FileInfo, error) { return readDir(n) }

func readDir(name string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else it was removed meanwhile
			infos = append(infos, info)
		}
	}
	return infos, nil
}

func (hostFiles) Create(name string, like fs.FileInfo) (io.WriteCloser, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, like.Mode().Perm())
	if err != nil {
		return nil, err
	}
	return &made{f, func() error {
		return errors.Join(os.Chmod(name, like.Mode().Perm()), os.Chtimes(name, time.Time{}, like.ModTime()))
	}}, nil
}

// made is a file that gets its mode and time when it is closed.
type made struct {
	io.WriteCloser
	after func() error
}

func (m *made) Close() error { return errors.Join(m.WriteCloser.Close(), m.after()) }

// ReadFrom lets an sftp file take several blocks at once.
func (m *made) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := m.WriteCloser.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{m.WriteCloser}, r)
}

// guestFiles are a machine's. Paths that are not absolute start in the user's home folder there; ~/ is that folder, too.
type guestFiles struct{ c *sftp.Client }

func inHome(name string) string {
	if name == "~" {
		return "."
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok && rest != "" {
		return rest
	}
	return name
}

func (g guestFiles) Stat(name string) (fs.FileInfo, error)      { return g.c.Stat(inHome(name)) }
func (g guestFiles) ReadDir(name string) ([]fs.FileInfo, error) { return g.c.ReadDir(inHome(name)) }
func (g guestFiles) Open(name string) (io.ReadCloser, error)    { return g.c.Open(inHome(name)) }
func (g guestFiles) MkdirAll(name string) error                 { return g.c.MkdirAll(inHome(name)) }

func (g guestFiles) Create(name string, like fs.FileInfo) (io.WriteCloser, error) {
	name = inHome(name)
	f, err := g.c.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	return &made{f, func() error {
		return errors.Join(g.c.Chmod(name, like.Mode().Perm()), g.c.Chtimes(name, like.ModTime(), like.ModTime()))
	}}, nil
}
