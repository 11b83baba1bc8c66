// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// TooLargeError tells that a volume has more content than it may have.
type TooLargeError struct{ Limit int64 }

// Error says the bound.
func (e *TooLargeError) Error() string { return fmt.Sprintf("larger than %d bytes", e.Limit) }

// Blob is stored content.
type Blob struct {
	Digest           string // sha256:… of the content
	Size, Compressed int64  // bytes
}

// Add compresses and stores content, which is on disk when it returns. More than limit bytes are refused with a [*TooLargeError]; 0 is no limit. It
// is called within [Store.Saving].
func (s Store) Add(ctx context.Context, content io.Reader, limit int64) (b Blob, err error) {
	f, err := os.CreateTemp(filepath.Join(s.Dir, "blobs"), tmpPrefix+"*")
	if err != nil {
		return b, fmt.Errorf("store content: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error matters
		}
	}()
	sum := sha256.New()
	b.Size, err = compress(ctx, f, io.TeeReader(content, sum), limit)
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Sync(), f.Close()); err != nil {
		return b, fmt.Errorf("store content: %w", err)
	}
	b.Digest, b.Compressed = "sha256:"+hex.EncodeToString(sum.Sum(nil)), info.Size()
	if err = os.Rename(f.Name(), s.blob(b.Digest)); err == nil {
		err = atomicfile.SyncDir(filepath.Dir(f.Name()))
	}
	if err != nil {
		return b, fmt.Errorf("store content: %w", err)
	}
	return b, nil
}

// compress copies content compressed to w.
func compress(ctx context.Context, w io.Writer, content io.Reader, limit int64) (n int64, err error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return 0, err
	}
	content = &contextReader{ctx, content}
	if limit > 0 {
		content = io.LimitReader(content, limit+1)
	}
	n, err = io.Copy(z, content)
	err = errors.Join(err, z.Close())
	if err == nil && limit > 0 && n > limit {
		err = &TooLargeError{limit}
	}
	return n, err
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// CorruptError is stored content that is not what it was when it was stored.
type CorruptError struct{ Digest string }

// Error names the content.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("the stored content %s is damaged", e.Digest)
}

// Open reads stored content. Content that is not what was stored gives a [*CorruptError] in place of its end, at the latest.
func (s Store) Open(digest string) (io.ReadCloser, error) {
	f, err := os.Open(s.blob(digest))
	if errors.Is(err, fs.ErrNotExist) {
		if _, treeErr := os.Stat(s.tree(digest)); treeErr == nil {
			return s.openTree(digest), nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &blobReader{file: f, z: z, sum: sha256.New(), digest: digest}, nil
}

// blobReader checks what is read.
type blobReader struct {
	file   *os.File
	z      *zstd.Decoder
	sum    hash.Hash
	digest string
}

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.z.Read(p)
	r.sum.Write(p[:n])
	switch {
	case errors.Is(err, io.EOF):
		if "sha256:"+hex.EncodeToString(r.sum.Sum(nil)) != r.digest {
			err = &CorruptError{r.digest}
		}
	case err != nil: // of the compression
		err = &CorruptError{r.digest}
	}
	return n, err
}

func (r *blobReader) Close() error {
	r.z.Close()
	return r.file.Close()
}

// Check reads all content of a snapshot and compares it with its digests.
func (s Store) Check(ctx context.Context, snap Snapshot) error {
	for digest, what := range snap.blobs() {
		if err := s.check(ctx, digest); err != nil {
			return fmt.Errorf("check snapshot %q: %s: %w", snap.Name, what, err)
		}
	}
	return nil
}

func (s Store) check(ctx context.Context, digest string) error {
	r, err := s.Open(digest)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, &contextReader{ctx, r})
	return err
}
