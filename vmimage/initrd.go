// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// writeInitrd writes a tree as a zstd-compressed cpio archive in the format that the kernel unpacks ("newc"). Inode numbers count up, times are
// zero and owners root, so that the same tree gives the same bytes.
func (t *tree) writeInitrd(w io.Writer) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	out := &counted{w: bufio.NewWriter(z)}
	for i, p := range t.paths() {
		n := t.nodes[p]
		body, size := t.open(n), n.n
		if n.mode&fs.ModeSymlink != 0 {
			body, size = strings.NewReader(n.link), int64(len(n.link))
		}
		if err := out.entry(i+1, p, unixMode(n.mode), 0, size, body); err != nil {
			return fmt.Errorf("write %q to the initial RAM disk: %w", p, err)
		}
	}
	// The kernel opens /dev/console before anything of ours runs.
	if err := out.entry(len(t.nodes)+1, "dev/console", 0o020600, 5<<8|1, 0, strings.NewReader("")); err != nil {
		return err
	}
	if err := out.entry(0, "TRAILER!!!", 0, 0, 0, strings.NewReader("")); err != nil {
		return err
	}
	if err := out.w.Flush(); err != nil {
		return err
	}
	return z.Close()
}

// counted knows how much was written, for padding.
type counted struct {
	w *bufio.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *counted) pad() error {
	_, err := c.Write(make([]byte, -c.n&3))
	return err
}

// entry writes one file; dev is a device's number as major<<8|minor.
func (c *counted) entry(ino int, name string, mode, dev uint32, size int64, body io.Reader) error {
	const links, zero = 1, 0
	_, err := fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		ino, mode, zero, zero, links, zero, size, zero, zero, dev>>8, dev&0xff, len(name)+1, zero, name)
	if err != nil {
		return err
	}
	if err := c.pad(); err != nil {
		return err
	}
	if _, err := io.CopyN(c, body, size); err != nil {
		return err
	}
	return c.pad()
}

// unixMode is a mode as the kernel numbers it.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	switch {
	case m.IsDir():
		u |= 0o040000
	case m&fs.ModeSymlink != 0:
		u |= 0o120000
	default:
		u |= 0o100000
	}
	return u
}
