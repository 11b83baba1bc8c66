// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A state file is a header, chunks in any order, the index of the chunks, and a trailer. Numbers are little-endian.
const (
	magic      = "dev-mem\n"
	version    = 1
	headerSize = 16 // magic, version, reserved
	// trailerSize: index offset, index length, memory size, file size, CRC of the index, CRC of the trailer before it, magic.
	trailerSize = 8 + 8 + 8 + 8 + 4 + 4 + 8

	pageSize   = 4096
	chunkPages = 256
	chunkSize  = pageSize * chunkPages
	bitmapSize = chunkPages / 8
	// recordSize: kind, encoding, reserved, number, offset, stored, raw, CRC, bitmap.
	recordSize = 1 + 1 + 2 + 4 + 8 + 4 + 4 + 4 + bitmapSize
	// maxChunks bounds what an index may claim: 16 TiB of memory.
	maxChunks = 16 << 20
)

// Kinds of chunks.
const (
	kindMemory  = 0 // pages of the guest's memory
	kindDevices = 1 // a part of the VMM's stream
)

// Encodings of what a chunk holds.
const (
	rawChunk  = 0
	zstdChunk = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TornError says that a file is not a whole and sound state.
type TornError struct{ Why string }

func (e *TornError) Error() string { return "the saved memory is damaged: " + e.Why }

// VersionError says that a newer program wrote the file.
type VersionError struct{ Version uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the saved memory has format %d, which a newer dev wrote", e.Version)
}

// record is a chunk in the index.
type record struct {
	kind, encoding byte
	number         uint32 // of the chunk in its kind: memory chunk n begins at n MiB
	offset         int64
	stored, raw    uint32 // bytes in the file, and decoded
	crc            uint32 // of the stored bytes
	pages          [bitmapSize]byte
}

func (r *record) put(b []byte) []byte {
	b = append(b, r.kind, r.encoding, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, r.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.offset))
	b = binary.LittleEndian.AppendUint32(b, r.stored)
	b = binary.LittleEndian.AppendUint32(b, r.raw)
	b = binary.LittleEndian.AppendUint32(b, r.crc)
	return append(b, r.pages[:]...)
}

func getRecord(b []byte) record {
	r := record{
		kind: b[0], encoding: b[1], number: binary.LittleEndian.Uint32(b[4:]), offset: int64(binary.LittleEndian.Uint64(b[8:])),
		stored: binary.LittleEndian.Uint32(b[16:]), raw: binary.LittleEndian.Uint32(b[20:]), crc: binary.LittleEndian.Uint32(b[24:]),
	}
	copy(r.pages[:], b[28:])
	return r
}

// check says what is wrong with a record in a file whose chunks end at limit and whose memory has size bytes.
func (r *record) check(limit, size int64) error {
	count := 0
	for page := range chunkPages {
		if r.has(page) {
			count++
		}
	}
	switch {
	case r.kind > kindDevices || r.encoding > zstdChunk:
		return &TornError{"a chunk is of an unknown kind"}
	case r.offset < headerSize || r.stored == 0 || r.stored > 2*chunkSize || r.offset > limit-int64(r.stored):
		return &TornError{"a chunk is outside the file"}
	case r.raw == 0 || r.raw > chunkSize || r.encoding == rawChunk && r.raw != r.stored:
		return &TornError{"a chunk has an impossible size"}
	case r.kind == kindMemory && (int64(count)*pageSize != int64(r.raw) || r.end() > size):
		return &TornError{"a chunk's pages do not fit"}
	}
	return nil
}

func (r *record) has(page int) bool { return r.pages[page/8]&(1<<(page%8)) != 0 }

// end is where the last page of a memory chunk ends.
func (r *record) end() int64 {
	last := 0
	for page := range chunkPages {
		if r.has(page) {
			last = page + 1
		}
	}
	return int64(r.number)*chunkSize + int64(last)*pageSize
}

// index is the end of a file: all chunks, and how large the memory is.
type index struct {
	memory  int64
	records []record
}

// writeEnd writes index and trailer at an offset.
func (x *index) writeEnd(w io.WriterAt, offset int64) error {
	b := make([]byte, 0, len(x.records)*recordSize+trailerSize)
	for i := range x.records {
		b = x.records[i].put(b)
	}
	length := len(b)
	sum := crc32.Checksum(b, castagnoli)
	b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	b = binary.LittleEndian.AppendUint64(b, uint64(x.memory))
	b = binary.LittleEndian.AppendUint64(b, uint64(offset)+uint64(length)+trailerSize)
	b = binary.LittleEndian.AppendUint32(b, sum)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[length:], castagnoli))
	b = append(b, magic...)
	_, err := w.WriteAt(b, offset)
	return err
}

func header() []byte {
	b := append([]byte(nil), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// readIndex reads and checks header, trailer and index of a file of a size.
func readIndex(r io.ReaderAt, size int64) (*index, error) {
	head := make([]byte, headerSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, short(err)
	}
	if !bytes.Equal(head[:8], []byte(magic)) {
		return nil, &TornError{"it does not begin as one"}
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != version {
		return nil, &VersionError{v}
	}
	if size < headerSize+trailerSize {
		return nil, &TornError{"it ends early"}
	}
	t := make([]byte, trailerSize)
	if _, err := r.ReadAt(t, size-trailerSize); err != nil {
		return nil, short(err)
	}
	if !bytes.Equal(t[40:], []byte(magic)) || crc32.Checksum(t[:36], castagnoli) != binary.LittleEndian.Uint32(t[36:]) {
		return nil, &TornError{"its end is missing"}
	}
	offset, length := int64(binary.LittleEndian.Uint64(t)), int64(binary.LittleEndian.Uint64(t[8:]))
	x := &index{memory: int64(binary.LittleEndian.Uint64(t[16:]))}
	switch {
	case int64(binary.LittleEndian.Uint64(t[24:])) != size, length < 0, length%recordSize != 0, length > maxChunks*recordSize, offset < headerSize, offset != size-trailerSize-length:
		return nil, &TornError{"its size is not what it was"}
	case x.memory < 0 || x.memory > maxChunks*chunkSize || x.memory%pageSize != 0:
		return nil, &TornError{"its memory has an impossible size"}
	}
	b := make([]byte, length)
	if _, err := r.ReadAt(b, offset); err != nil {
		return nil, short(err)
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(t[32:]) {
		return nil, &TornError{"its index is not what was written"}
	}
	for ; len(b) > 0; b = b[recordSize:] {
		x.records = append(x.records, getRecord(b))
	}
	return x, x.check(offset)
}

// check looks at all chunks together: each is there once, and the devices' are without gaps.
func (x *index) check(limit int64) error {
	seen := map[uint64]bool{}
	var devices, next uint32
	for i := range x.records {
		r := &x.records[i]
		if err := r.check(limit, x.memory); err != nil {
			return err
		}
		key := uint64(r.kind)<<32 | uint64(r.number)
		if seen[key] {
			return &TornError{"a chunk is there twice"}
		}
		seen[key] = true
		if r.kind == kindDevices {
			devices, next = devices+1, max(next, r.number+1)
		}
	}
	if devices == 0 || devices != next {
		return &TornError{"the state of the devices is not complete"}
	}
	return nil
}

// short is the error of a read that found too little.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &TornError{"it ends early"}
	}
	return fmt.Errorf("read the saved memory: %w", err)
}

// File is a state file open for reading.
type File struct {
	f    *os.File
	x    *index
	size int64
}

// Open opens a state file and checks that it is whole. What is in the chunks is checked when they are read.
func Open(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the saved memory: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the saved memory: %w", err), f.Close())
	}
	x, err := readIndex(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{f: f, x: x, size: info.Size()}, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// MemorySize is the size of the guest's memory in bytes; 0 where it is in the VMM's stream.
func (f *File) MemorySize() int64 { return f.x.memory }

// identity is what tells the file from another.
func (f *File) identity() (size int64, sum uint32) {
	b := make([]byte, 0, len(f.x.records)*recordSize)
	for i := range f.x.records {
		b = f.x.records[i].put(b)
	}
	return f.size, crc32.Checksum(b, castagnoli)
}
