// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// workers is how many goroutines read and write chunks: a start is waited for, and the VM's process starts beside.
func workers() int { return min(max(runtime.GOMAXPROCS(0), 2), 6) }

// chunkReader reads and checks chunks; one for each goroutine.
type chunkReader struct {
	f               *File
	zstd            *zstd.Decoder
	stored, decoded []byte
}

func (f *File) reader() *chunkReader { return &chunkReader{f: f} }

func (c *chunkReader) close() {
	if c.zstd != nil {
		c.zstd.Close()
	}
}

// read returns what a chunk holds, valid until the next call.
func (c *chunkReader) read(r *record) ([]byte, error) {
	c.stored = slices.Grow(c.stored[:0], int(r.stored))[:r.stored]
	if _, err := c.f.f.ReadAt(c.stored, r.offset); err != nil {
		return nil, short(err)
	}
	if crc32.Checksum(c.stored, castagnoli) != r.crc {
		return nil, &TornError{"a part of it is not what was written"}
	}
	if r.encoding == rawChunk {
		return c.stored, nil
	}
	if c.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*chunkSize))
		if err != nil {
			return nil, fmt.Errorf("read the saved memory: %w", err)
		}
		c.zstd = d
	}
	b, err := c.zstd.DecodeAll(c.stored, c.decoded[:0])
	if err != nil || len(b) != int(r.raw) {
		return nil, &TornError{"a part of it cannot be decompressed"}
	}
	c.decoded = b
	return b, nil
}

// LoadMemory writes the guest's memory into w, which is all zero. Chunks are written side by side.
func (f *File) LoadMemory(ctx context.Context, w io.WriterAt) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range workers() {
		g.Go(func() error {
			c := f.reader()
			defer c.close()
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(f.x.records)) {
					return nil
				}
				r := &f.x.records[i]
				if r.kind != kindMemory {
					continue
				}
				data, err := c.read(r)
				if err == nil {
					err = r.scatter(w, data)
				}
				if err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// scatter writes a chunk's pages to where they belong, neighbours at once.
func (r *record) scatter(w io.WriterAt, data []byte) error {
	base := int64(r.number) * chunkSize
	for page := 0; page < chunkPages; page++ {
		first := page
		for page < chunkPages && r.has(page) {
			page++
		}
		if n := (page - first) * pageSize; n > 0 {
			if _, err := w.WriteAt(data[:n], base+int64(first)*pageSize); err != nil {
				return fmt.Errorf("restore the machine's memory: %w", err)
			}
			data = data[n:]
		}
	}
	return nil
}

// WriteDevices writes the VMM's stream to w, each chunk once it is checked.
func (f *File) WriteDevices(w io.Writer) error {
	var list []*record
	for i := range f.x.records {
		if f.x.records[i].kind == kindDevices {
			list = append(list, &f.x.records[i])
		}
	}
	slices.SortFunc(list, func(a, b *record) int { return cmp.Compare(a.number, b.number) })
	c := f.reader()
	defer c.close()
	for _, r := range list {
		data, err := c.read(r)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("restore the machine's devices: %w", err)
		}
	}
	return nil
}

// Verify reads all of a state file.
func Verify(ctx context.Context, name string) (err error) {
	f, err := Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := f.reader()
	defer c.close()
	for i := range f.x.records {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := c.read(&f.x.records[i]); err != nil {
			return err
		}
	}
	return nil
}
