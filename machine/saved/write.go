// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/machine/sparse"
)

// Memory is a guest's memory as it is read for saving: a file that may have holes.
type Memory interface {
	io.ReaderAt
	// Extents are the parts that may be other than zero, ascending. Nil: all.
	Extents() ([]Extent, error)
}

// Extent is a part of a file, from Begin up to End.
type Extent struct{ Begin, End int64 }

// writer is a state file that is being written. Its methods are safe for concurrent use.
type writer struct {
	f    *os.File
	mu   sync.Mutex
	next int64
	x    index
}

// create makes the file; there must be none.
func create(name string) (*writer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("save the machine's memory: %w", err)
	}
	if _, err := f.Write(header()); err != nil {
		return nil, errors.Join(fmt.Errorf("save the machine's memory: %w", err), f.Close(), os.Remove(name))
	}
	return &writer{f: f, next: headerSize}, nil
}

// add writes a chunk.
func (w *writer) add(r record, stored []byte) error {
	r.stored, r.crc = uint32(len(stored)), crc32.Checksum(stored, castagnoli)
	w.mu.Lock()
	r.offset = w.next
	w.next += int64(len(stored))
	w.x.records = append(w.x.records, r)
	w.mu.Unlock()
	if _, err := w.f.WriteAt(stored, r.offset); err != nil {
		return fmt.Errorf("save the machine's memory: %w", err)
	}
	return nil
}

// finish makes the file whole and durable, or takes it away where err says that it cannot be.
func (w *writer) finish(err error) error {
	if err == nil {
		if err = errors.Join(w.x.writeEnd(w.f, w.next), w.f.Sync()); err != nil {
			err = fmt.Errorf("save the machine's memory: %w", err)
		}
	}
	err = errors.Join(err, w.f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(w.f.Name()))
	}
	return err
}

// Write writes a state file: size bytes of memory (nil: it is in the VMM's stream), and then what devices writes. On an error there is no file.
func Write(ctx context.Context, name string, memory Memory, size int64, devices func(w io.Writer) error) error {
	w, err := create(name)
	if err != nil {
		return err
	}
	if memory != nil {
		w.x.memory = size
		err = w.memory(ctx, memory, size)
	}
	if err == nil {
		err = w.devices(devices)
	}
	return w.finish(err)
}

// memory writes all pages that are not zero.
func (w *writer) memory(ctx context.Context, m Memory, size int64) error {
	extents, err := m.Extents()
	if err != nil {
		return fmt.Errorf("save the machine's memory: %w", err)
	}
	if extents == nil {
		extents = []Extent{{0, size}}
	}
	if err := w.room(extents); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	numbers := make(chan uint32)
	g.Go(func() error {
		defer close(numbers)
		for _, n := range chunksOf(extents, size) {
			select {
			case numbers <- n:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers() {
		g.Go(func() error {
			buf := make([]byte, chunkSize)
			for n := range numbers {
				if err := w.chunk(m, n, buf[:min(chunkSize, size-int64(n)*chunkSize)]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// spare is how much of the disk saving leaves to others, in bytes.
const spare = 256 << 20

// SpaceError says that the memory does not fit on the host's disk.
type SpaceError struct {
	Dir        string
	Need, Free int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("save the machine's memory: it may need %d MiB in %q, where %d MiB are free", (e.Need+spare)>>20, e.Dir, e.Free>>20)
}

// Hint names the next step.
func (e *SpaceError) Hint() string {
	return "free space there; `dev machine df` shows what machines take up"
}

// room says whether there is room for these parts of the memory. A disk that does not tell may still be full when it is written to.
func (w *writer) room(extents []Extent) error {
	var need int64
	for _, e := range extents {
		need += e.End - e.Begin
	}
	dir := filepath.Dir(w.f.Name())
	if free, err := sparse.Free(dir); err == nil && free < need+spare {
		return &SpaceError{Dir: dir, Need: need, Free: free}
	}
	return nil
}

// chunksOf are the numbers of the chunks that the extents touch.
func chunksOf(extents []Extent, size int64) []uint32 {
	var list []uint32
	next := int64(0)
	for _, e := range extents {
		for n := max(next, e.Begin/chunkSize); n*chunkSize < min(e.End, size); n++ {
			list, next = append(list, uint32(n)), n+1
		}
	}
	return list
}

var zeroPage [pageSize]byte

// chunk packs the pages of one chunk together and writes them, if there are any.
func (w *writer) chunk(m io.ReaderAt, n uint32, buf []byte) error {
	if _, err := m.ReadAt(buf, int64(n)*chunkSize); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("save the machine's memory: %w", err)
	}
	r := record{kind: kindMemory, encoding: rawChunk, number: n}
	packed := 0
	for page := 0; page*pageSize < len(buf); page++ {
		data := buf[page*pageSize : (page+1)*pageSize]
		if bytes.Equal(data, zeroPage[:]) {
			continue
		}
		r.pages[page/8] |= 1 << (page % 8)
		copy(buf[packed:], data)
		packed += pageSize
	}
	if packed == 0 {
		return nil
	}
	r.raw = uint32(packed)
	return w.add(r, buf[:packed])
}

// devices writes the VMM's stream in chunks.
func (w *writer) devices(from func(io.Writer) error) error {
	s := &deviceStream{w: w}
	if err := from(s); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	if s.number == 0 {
		return errors.New("save the machine's memory: the VMM said nothing")
	}
	return nil
}

// deviceStream collects a stream into chunks.
type deviceStream struct {
	w      *writer
	buf    []byte
	number uint32
}

func (s *deviceStream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		take := min(len(p), chunkSize-len(s.buf))
		s.buf, p = append(s.buf, p[:take]...), p[take:]
		if len(s.buf) == chunkSize {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (s *deviceStream) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	err := s.w.add(record{kind: kindDevices, encoding: rawChunk, number: s.number, raw: uint32(len(s.buf))}, s.buf)
	s.number++
	s.buf = s.buf[:0]
	return err
}
