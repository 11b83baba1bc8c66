// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/seed71221737/dev/engine/native/atomicfile"
	"golang.org/x/sync/errgroup"
)

const (
	// parallelFetches is how many files are downloaded at once: enough to hide latency, few enough for a mirror's manners.
	parallelFetches = 4
	// idleTimeout ends a download that stands still.
	idleTimeout = 60 * time.Second
)

// Blob is a file known by its digest, and where it can be had.
type Blob struct {
	// Name stands in errors and progress.
	Name   string
	SHA256 string // lower-case hexadecimal digits
	Size   int64  // bytes
	URLs   []string
}

// Progress is told how a download goes: done of total bytes of the named file. It is called from several goroutines.
type Progress func(name string, done, total int64)

// Downloads is a content-addressed folder of downloaded files, safe for concurrent use by goroutines and processes.
type Downloads struct {
	Dir    string
	Client *http.Client
	// Progress may be nil.
	Progress Progress
}

// GoneError says that no source has a locked file any more.
type GoneError struct {
	Name string
	// Tried are the addresses and what each said.
	Tried []error
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("download %q: %v", e.Name, errors.Join(e.Tried...))
}

// Hint names the next step.
func (e *GoneError) Hint() string {
	return "a mirror keeps only the newest versions: use Debian's snapshot service (no --mirror), or resolve anew with --refresh"
}

// FetchAll makes sure that every blob is in the folder, downloading several at once, and returns their paths in order.
func (d *Downloads) FetchAll(ctx context.Context, blobs []Blob) ([]string, error) {
	paths := make([]string, len(blobs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for i, b := range blobs {
		g.Go(func() (err error) {
			paths[i], err = d.Fetch(ctx, b)
			return err
		})
	}
	return paths, g.Wait()
}

// Path is where a blob lies once it was fetched.
func (d *Downloads) Path(sha256 string) string { return filepath.Join(d.Dir, "sha256", sha256) }

// Fetch makes sure that a blob is in the folder and returns its path. A download that was cut off goes on where it ended. Files in the folder were
// verified when they entered it; Fetch looks at the size only.
func (d *Downloads) Fetch(ctx context.Context, b Blob) (_ string, err error) {
	name := d.Path(b.SHA256)
	if info, err := os.Stat(name); err == nil && info.Size() == b.Size {
		return name, nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", fmt.Errorf("make download folder: %w", err)
	}
	lock := flock.New(name + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock download of %q: %w", b.Name, err)
	}
	// The lock file stays: removing it would let a waiter and a newcomer hold locks on different files of the same name.
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if info, err := os.Stat(name); err == nil && info.Size() == b.Size {
		return name, nil // another process was faster
	}
	gone := &GoneError{Name: b.Name}
	for _, u := range b.URLs {
		err := d.fetchFrom(ctx, u, b, name)
		if err == nil {
			return name, nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("download %q: %w", b.Name, context.Cause(ctx))
		}
		gone.Tried = append(gone.Tried, err)
	}
	return "", gone
}

// fetchFrom downloads into a partial file, verifies it, and renames it into place.
func (d *Downloads) fetchFrom(ctx context.Context, url string, b Blob, name string) (err error) {
	part := name + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOnce(f)) }()
	sum, have, err := hashPrefix(f, b.Size)
	if err != nil {
		return err
	}
	if have < b.Size {
		if have, err = d.appendBody(ctx, url, b, f, have, sum); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != b.SHA256 {
		os.Remove(part)
		return fmt.Errorf("%s: %d bytes have SHA-256 %s, expected %s", url, have, got, b.SHA256)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(name))
}

// closeOnce closes a file that may be closed already.
func closeOnce(f *os.File) error {
	if err := f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// hasher is the part of hash.Hash that is needed here.
type hasher interface {
	io.Writer
	Sum(b []byte) []byte
	Reset()
}

// hashPrefix digests what a partial file holds; one that is too long starts anew.
func hashPrefix(f *os.File, size int64) (hasher, int64, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return nil, 0, err
	}
	if n > size {
		if err := f.Truncate(0); err != nil {
			return nil, 0, err
		}
		_, err := f.Seek(0, io.SeekStart)
		return sha256.New(), 0, err
	}
	return sum, n, nil
}

// appendBody asks for the rest of a file and appends it; a server that does not know ranges sends all of it again.
func (d *Downloads) appendBody(ctx context.Context, url string, b Blob, f *os.File, have int64, sum hasher) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(idleTimeout, func() { cancel(fmt.Errorf("nothing came for %v", idleTimeout)) })
	defer stall.Stop()
	res, err := d.get(ctx, url, have)
	if err != nil {
		return have, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK && have > 0 {
		if err := f.Truncate(0); err != nil {
			return 0, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		sum.Reset()
		have = 0
	}
	body := &watched{r: res.Body, stall: stall, report: func(n int64) { d.report(b, have+n) }}
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(body, b.Size-have+1))
	have += n
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return have, fmt.Errorf("%s: %w", url, context.Cause(ctx))
	case err != nil:
		return have, fmt.Errorf("%s: %w", url, err)
	case have < b.Size:
		return have, fmt.Errorf("%s: it ended after %d of %d bytes", url, have, b.Size)
	}
	return have, nil
}

func (d *Downloads) get(ctx context.Context, url string, from int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	res, err := d.client().Do(req)
	if err != nil {
		return nil, err
	}
	ok := res.StatusCode == http.StatusOK
	if from > 0 && res.StatusCode == http.StatusPartialContent {
		ok = strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from))
	}
	if !ok {
		_ = res.Body.Close() // its status is the answer
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return res, nil
}

func (d *Downloads) client() *http.Client {
	if d.Client != nil {
		return d.Client
	}
	return http.DefaultClient
}

func (d *Downloads) report(b Blob, done int64) {
	if d.Progress != nil {
		d.Progress(b.Name, done, b.Size)
	}
}

// watched counts what is read and puts off the stall timer.
type watched struct {
	r      io.Reader
	n      int64
	stall  *time.Timer
	report func(int64)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.n += int64(n)
		w.stall.Reset(idleTimeout)
		w.report(w.n)
	}
	return n, err
}

// fetchSmall downloads a file of unknown digest, such as a release, from the first source that has it; the caller verifies it.
func (d *Downloads) fetchSmall(ctx context.Context, name string, urls []string, limit int64) ([]byte, error) {
	gone := &GoneError{Name: name}
	for _, u := range urls {
		data, err := d.getSmall(ctx, u, limit)
		if err == nil {
			return data, nil
		}
		gone.Tried = append(gone.Tried, err)
	}
	return nil, gone
}

func (d *Downloads) getSmall(ctx context.Context, url string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	res, err := d.get(ctx, url, 0)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: it has more than %d bytes", url, limit)
	}
	return data, nil
}
