// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"context"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Compress writes a compressed copy of a state file. It looks at ctx between chunks. On an error there is no copy.
func Compress(ctx context.Context, from, to string) (err error) {
	f, err := Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("compress the saved memory: %w", err)
	}
	w, err := create(to)
	if err != nil {
		return err
	}
	w.x.memory = f.x.memory
	return w.finish(w.compress(ctx, f, enc))
}

func (w *writer) compress(ctx context.Context, f *File, enc *zstd.Encoder) error {
	c := f.reader()
	defer c.close()
	var buf []byte
	for i := range f.x.records {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := f.x.records[i]
		data, err := c.read(&r)
		if err != nil {
			return err
		}
		r.encoding = rawChunk
		if buf = enc.EncodeAll(data, buf[:0]); len(buf) < len(data) {
			r.encoding, data = zstdChunk, buf
		}
		if err := w.add(r, data); err != nil {
			return err
		}
	}
	return nil
}
