// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/seed71221737/dev/vmimage/deb"
)

// rootLabel is the volume name by which the guest finds its root.
const rootLabel = "dev-root"

// addPackage puts a package's files into the tree, except those the spec drops, and returns the licences it declares.
func (t *tree) addPackage(s *Spec, name, file string) (licences []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open package: %w", err)
	}
	defer f.Close()
	err = deb.ReadFiles(name, f, func(e deb.Entry, r io.Reader) error {
		if e.Path == "usr/share/doc/"+name+"/copyright" && e.Type == tar.TypeReg && e.Size < 4<<20 {
			text, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			licences = deb.Licenses(text)
			r = strings.NewReader(string(text))
		}
		if s.dropped(e.Path) {
			return nil
		}
		return t.addEntry(e, r)
	})
	return licences, err
}

func (t *tree) addEntry(e deb.Entry, r io.Reader) error {
	mode := fs.FileMode(e.Mode & 0o777)
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if e.Mode&bit != 0 {
			mode |= flag
		}
	}
	switch e.Type {
	case tar.TypeDir:
		return t.put(e.Path, &node{mode: mode | fs.ModeDir, uid: e.UID, gid: e.GID})
	case tar.TypeSymlink:
		return t.put(e.Path, &node{mode: fs.ModeSymlink | 0o777, link: e.Link})
	case tar.TypeLink:
		target := t.nodes[place(e.Link)]
		if target == nil || !target.mode.IsRegular() {
			return fmt.Errorf("hard link %q to %q, which is not there", e.Path, e.Link)
		}
		same := *target
		return t.put(e.Path, &same)
	}
	return t.write(e.Path, mode, e.UID, e.GID, r, e.Size)
}

// addSpec adds the spec's own folders, links and files, and what every Debian system has.
func (t *tree) addSpec(s *Spec) error {
	for _, dir := range s.Folders {
		mode := fs.FileMode(0o755)
		if dir == "tmp" || dir == "var/tmp" {
			mode = 0o777 | fs.ModeSticky
		}
		if err := t.put(dir, &node{mode: mode | fs.ModeDir}); err != nil {
			return err
		}
	}
	for _, dir := range merged {
		if t.nodes["usr/"+dir] != nil {
			t.nodes[dir] = &node{mode: fs.ModeSymlink | 0o777, link: "usr/" + dir}
		}
	}
	for p, target := range s.Links {
		if err := t.put(p, &node{mode: fs.ModeSymlink | 0o777, link: target}); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		mode, err := f.mode()
		if err != nil {
			return err
		}
		if err := t.text(f.Path, fs.FileMode(mode), f.Content); err != nil {
			return err
		}
	}
	return t.addCertificates()
}

// addCertificates joins the certificate authorities into the one file that programs read, as the ca-certificates package does when installed.
func (t *tree) addCertificates() error {
	var all strings.Builder
	for _, p := range t.glob("usr/share/ca-certificates/", ".crt") {
		pem, err := t.read(p)
		if err != nil {
			return err
		}
		all.Write(pem)
		if !strings.HasSuffix(string(pem), "\n") {
			all.WriteByte('\n')
		}
		delete(t.nodes, p)
	}
	if all.Len() == 0 {
		return nil
	}
	return t.text("etc/ssl/certs/ca-certificates.crt", 0o644, all.String())
}

// writeRoot writes the tree as an erofs file system: uncompressed, because it is compressed for distribution, boots faster so, and its pages are
// shared with the page cache. Every file has the same time, and the volume's identity is the digest of all that is in it.
func (t *tree) writeRoot(name string, at time.Time) (uuid string, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, closeOnce(f)) }()
	w := erofs.Create(f, erofs.WithBuildTime(uint64(at.Unix()), 0))
	if err := w.Mkdir("/", 0o755); err != nil {
		return "", err
	}
	if err := w.Chtimes("/", at, at); err != nil {
		return "", err
	}
	for _, p := range t.paths() {
		if err := t.writeNode(w, p, at); err != nil {
			return "", fmt.Errorf("write %q to the root: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("finish root: %w", err)
	}
	return labelRoot(f)
}

func (t *tree) writeNode(w *erofs.Writer, p string, at time.Time) error {
	n := t.nodes[p]
	name := "/" + p
	var err error
	switch {
	case n.mode.IsDir():
		if err = w.Mkdir(name, n.mode.Perm()); err == nil && n.mode&fs.ModeSticky != 0 {
			err = w.Chmod(name, n.mode&(fs.ModePerm|fs.ModeSticky))
		}
	case n.mode&fs.ModeSymlink != 0:
		err = w.Symlink(n.link, name)
	default:
		err = t.writeFile(w, name, n)
	}
	if err != nil {
		return err
	}
	if err := w.Chown(name, n.uid, n.gid); err != nil {
		return err
	}
	return w.Chtimes(name, at, at)
}

func (t *tree) writeFile(w *erofs.Writer, name string, n *node) error {
	f, err := w.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, t.open(n)); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Chmod(n.mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// Places in an erofs superblock.
const (
	superblock     = 1024
	erofsMagic     = 0xE0F5E1E2
	compatOffset   = superblock + 8
	uuidOffset     = superblock + 48
	labelOffset    = superblock + 64
	compatChecksum = 1
)

// labelRoot writes the volume's name and identity into the superblock, which the writer leaves empty, and drops the optional checksum over it.
func labelRoot(f *os.File) (string, error) {
	head := make([]byte, labelOffset+16)
	if _, err := f.ReadAt(head, 0); err != nil {
		return "", fmt.Errorf("read superblock: %w", err)
	}
	if binary.LittleEndian.Uint32(head[superblock:]) != erofsMagic {
		return "", errors.New("the root has no erofs superblock")
	}
	compat := binary.LittleEndian.Uint32(head[compatOffset:])
	binary.LittleEndian.PutUint32(head[compatOffset:], compat&^compatChecksum)
	clear(head[superblock+4 : superblock+8])
	clear(head[uuidOffset:])
	copy(head[labelOffset:], rootLabel)
	if _, err := f.WriteAt(head, 0); err != nil {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	id := sum.Sum(nil)[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // an RFC 9562 identifier of version 8: made of a digest
	if _, err := f.WriteAt(id, uuidOffset); err != nil {
		return "", err
	}
	h := hex.EncodeToString(id)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], f.Sync()
}
