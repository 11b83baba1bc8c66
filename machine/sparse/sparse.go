// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package sparse deals with files that have holes: disks whose size is not what they take up. It copies them with their holes, says what they take up,
// and makes holes of what holds only zeros.
//
// A file system without holes (FAT, exFAT) holds the whole size: everything works there, and takes more room.
package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// chunk is what is read at once, and block the least run of zeros that becomes a hole.
	chunk = 1 << 20
	block = 64 << 10
)

// extent is a part of a file that may hold data.
type extent struct{ from, to int64 }

// Copy copies the file src to dst, which must not exist, and syncs it. Where the file system can, both share their blocks until one is written to;
// elsewhere holes stay holes and runs of zeros become some. The copy has src's size. On an error, and when ctx ends, dst is removed.
func Copy(ctx context.Context, dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("copy disk %q: %w", src, errors.Join(err, os.Remove(dst)))
		}
	}()
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := Make(out); err != nil {
		return err
	}
	if cloneFile(out, in) == nil {
		return out.Sync()
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	err = eachBlock(ctx, in, info.Size(), func(at int64, data []byte, zero bool) error {
		if zero {
			return nil // it is a hole already
		}
		_, err := out.WriteAt(data, at)
		return err
	})
	return errors.Join(err, out.Sync())
}

// Punch gives the blocks of a file that hold only zeros back to the host, and says how many bytes less it takes up then. What is read from the file stays
// the same. Nobody may write to it meanwhile. It can be interrupted at any time. errors.ErrUnsupported: the file system has no holes.
func Punch(ctx context.Context, name string) (given int64, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("make holes in a disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("make holes in disk %q: %w", name, err)
	}
	if err := Make(f); err != nil {
		return 0, fmt.Errorf("make holes in disk %q: %w", name, err)
	}
	before, err := Allocated(name)
	if err != nil {
		return 0, err
	}
	err = eachBlock(ctx, f, info.Size(), func(at int64, data []byte, zero bool) error {
		if !zero {
			return nil
		}
		return punchHole(f, at, int64(len(data)))
	})
	err = errors.Join(err, f.Sync())
	after, lookErr := Allocated(name)
	if err := errors.Join(err, lookErr); err != nil {
		return max(before-after, 0), fmt.Errorf("make holes in disk %q: %w", name, err)
	}
	return max(before-after, 0), nil
}

// eachBlock calls f for what may hold data, in runs of blocks that are all zero or not.
func eachBlock(ctx context.Context, in *os.File, size int64, f func(at int64, data []byte, zero bool) error) error {
	buf := make([]byte, chunk)
	for from := int64(0); from < size; {
		e, err := nextData(in, from, size)
		if err != nil {
			return err
		}
		for at := e.from; at < e.to; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := in.ReadAt(buf[:min(chunk, e.to-at)], at)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				return nil // somebody made it shorter
			}
			if err := runs(buf[:n], at, f); err != nil {
				return err
			}
			at += int64(n)
		}
		from = e.to
	}
	return nil
}

// runs calls f for each longest run of blocks in data that are all zero, or all not.
func runs(data []byte, at int64, f func(at int64, data []byte, zero bool) error) error {
	for len(data) > 0 {
		n := min(block, len(data))
		zero := isZero(data[:n])
		for n < len(data) {
			m := min(block, len(data)-n)
			if isZero(data[n:n+m]) != zero {
				break
			}
			n += m
		}
		if err := f(at, data[:n], zero); err != nil {
			return err
		}
		data, at = data[n:], at+int64(n)
	}
	return nil
}

var zeros [block]byte

func isZero(data []byte) bool { return bytes.Equal(data, zeros[:len(data)]) }
