// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/seed71221737/dev/machine/sparse"
)

const (
	minChunk  = 4 << 20
	maxChunks = 1 << 16
)

// chunkFor is the size of the chunks of a disk: as many as are worth a sum, and no more.
func chunkFor(size int64) int64 {
	chunk := int64(minChunk)
	for size/chunk >= maxChunks {
		chunk *= 2
	}
	return chunk
}

// describe reads a disk and returns a SHA-256 for each chunk, one after the other. A chunk of zeros, in a hole or not, has zeros for its sum.
func describe(ctx context.Context, file string) (sums []byte, d Disk, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, d, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, d, err
	}
	d = Disk{Size: info.Size(), Chunk: chunkFor(info.Size())}
	todo, err := chunksWithData(f, d)
	if err != nil {
		return nil, d, err
	}
	sums = make([]byte, (d.Size+d.Chunk-1)/d.Chunk*sha256.Size)
	d.Data, err = sumChunks(ctx, f, d, todo, sums)
	d.Sums = digest(sums)
	return sums, d, err
}

// chunksWithData lists the chunks that are not in a hole as a whole.
func chunksWithData(f *os.File, d Disk) ([]int64, error) {
	var list []int64
	for at := int64(0); at < d.Size; {
		start, end, err := sparse.Next(f, at, d.Size)
		if err != nil {
			return nil, fmt.Errorf("look for holes: %w", err)
		}
		for n := start / d.Chunk; start < end && n <= (end-1)/d.Chunk; n++ {
			if len(list) == 0 || list[len(list)-1] < n {
				list = append(list, n)
			}
		}
		at = max(end, at+1)
	}
	return list, nil
}

// sumChunks fills in the sums of chunks, on several processors, and returns how many bytes are in chunks that hold something.
func sumChunks(ctx context.Context, f io.ReaderAt, d Disk, todo []int64, sums []byte) (data int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, found atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.NumCPU(), 4) {
		workers.Go(func() {
			buf := make([]byte, d.Chunk)
			for i := next.Add(1) - 1; i < int64(len(todo)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				n := todo[i]
				size, err := sumChunk(f, buf, n*d.Chunk, sums[n*sha256.Size:(n+1)*sha256.Size])
				if err != nil {
					cancel(err)
				}
				found.Add(int64(size))
			}
		})
	}
	workers.Wait()
	return found.Load(), context.Cause(ctx)
}

// sumChunk reads one chunk and fills in its sum, unless it is all zeros.
func sumChunk(f io.ReaderAt, buf []byte, at int64, sum []byte) (size int, err error) {
	size, err = f.ReadAt(buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if isZero(buf[:size]) {
		return 0, nil
	}
	got := sha256.Sum256(buf[:size])
	copy(sum, got[:])
	return size, nil
}

// zeros is what a hole reads as.
var zeros [64 << 10]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// differ is the number of the first chunk whose sums differ, -1 if none does.
func differ(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for n := 0; n < min(len(a), len(b)); n += sha256.Size {
		if !bytes.Equal(a[n:n+sha256.Size], b[n:min(n+sha256.Size, len(b))]) {
			return n / sha256.Size
		}
	}
	return min(len(a), len(b)) / sha256.Size
}
