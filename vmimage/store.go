// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Store is the folder of images on this host. Images are shared by machines and never written to. It is safe for concurrent use, also by several
// processes.
//
// Below Dir: images/<digest>/ holds an image's files, uses/<digest>/<owner> says who uses it, tags.json names images, .tmp-* is work under way.
type Store struct{ Dir string }

// Image is an image in a store.
type Image struct {
	// Digest is the SHA-256 of the manifest, in hexadecimal digits.
	Digest string
	Dir    string
	// Manifest is nil where Problem says why the image cannot be used.
	Manifest *Manifest
	Problem  error
	Tags     []string
	// Users are the machines that use it.
	Users []string
	Size  int64 // bytes on disk
	Added time.Time
}

// tags is the file of names.
type tags struct {
	Schema int               `json:"schema"`
	Tags   map[string]string `json:"tags"` // name (and architecture) → digest
}

const tagSchema = 1

func (s *Store) images() string           { return filepath.Join(s.Dir, "images") }
func (s *Store) imageDir(d string) string { return filepath.Join(s.images(), d) }
func (s *Store) usesDir(d string) string  { return filepath.Join(s.Dir, "uses", d) }
func (s *Store) tagFile() string          { return filepath.Join(s.Dir, "tags.json") }
func tagKey(tag, arch string) string      { return tag + " " + arch }
func untagKey(key string) (tag string)    { tag, _, _ = strings.Cut(key, " "); return tag }

// locked runs f while no other process changes the store.
func (s *Store) locked(ctx context.Context, f func() error) (err error) {
	if err := os.MkdirAll(s.images(), 0o755); err != nil {
		return fmt.Errorf("make image store: %w", err)
	}
	lock := flock.New(filepath.Join(s.Dir, "lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return fmt.Errorf("lock image store %q: %w", s.Dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return f()
}

func (s *Store) readTags() (tags, error) {
	t := tags{Schema: tagSchema, Tags: map[string]string{}}
	data, err := os.ReadFile(s.tagFile())
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("read image tags: %w", err)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("read image tags %q: %w", s.tagFile(), err)
	}
	if t.Schema != tagSchema {
		return t, fmt.Errorf("read image tags %q: schema is %d; this dev reads %d: use a newer dev", s.tagFile(), t.Schema, tagSchema)
	}
	if t.Tags == nil {
		t.Tags = map[string]string{}
	}
	return t, nil
}

// Workspace makes a folder in the store in which an image is put together; Add moves it into place. The caller removes it when it is not added.
func (s *Store) Workspace() (string, error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return "", fmt.Errorf("make image store: %w", err)
	}
	dir, err := os.MkdirTemp(s.Dir, ".tmp-*")
	if err != nil {
		return "", fmt.Errorf("make image store: %w", err)
	}
	return dir, nil
}

// Add verifies the image in dir, a workspace of this store, and moves it into place under a tag (may be empty). An image that is there already is kept,
// unless it is damaged.
func (s *Store) Add(ctx context.Context, dir, tag string) (Image, error) {
	m, err := Verify(dir)
	if err != nil {
		return Image{}, err
	}
	digest, err := manifestDigest(dir)
	if err != nil {
		return Image{}, err
	}
	err = s.locked(ctx, func() error {
		if err := s.put(dir, digest); err != nil {
			return fmt.Errorf("add image to the store: %w", err)
		}
		return s.tag(tag, m.Arch, digest)
	})
	if err != nil {
		return Image{}, err
	}
	return s.image(digest)
}

// put moves a sound image into place. One that is there is kept, or taken away if it is damaged; VMs that run have its files open. The caller holds the lock.
func (s *Store) put(dir, digest string) error {
	there := s.imageDir(digest)
	if _, err := os.Stat(there); err == nil {
		if _, err := Verify(there); err == nil {
			return os.RemoveAll(dir)
		}
		gone, err := s.Workspace()
		if err == nil {
			err = os.Rename(there, filepath.Join(gone, digest))
		}
		if err != nil {
			return err
		}
		defer os.RemoveAll(gone) // Prune does it if this does not
	}
	return errors.Join(protect(dir), os.Rename(dir, there), atomicfile.SyncDir(s.images()))
}

// protect makes an image's files read-only, so that nothing writes to them by accident.
func protect(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o444); err != nil {
			return err
		}
	}
	return nil
}

// tag names an image; the caller holds the lock.
func (s *Store) tag(tag, arch, digest string) error {
	if tag == "" {
		return nil
	}
	t, err := s.readTags()
	if err != nil {
		return err
	}
	t.Tags[tagKey(tag, arch)] = digest
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.tagFile(), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write image tags: %w", err)
	}
	return nil
}

func manifestDigest(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// List returns all images, newest first. One that cannot be read is listed with its problem.
func (s *Store) List() ([]Image, error) {
	entries, err := os.ReadDir(s.images())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var list []Image
	for _, e := range entries {
		if !e.IsDir() || !hexDigest.MatchString(e.Name()) {
			continue
		}
		i, err := s.image(e.Name())
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	slices.SortStableFunc(list, func(a, b Image) int { return b.Added.Compare(a.Added) })
	return list, nil
}

// image describes one image without reading its files.
func (s *Store) image(digest string) (Image, error) {
	i := Image{Digest: digest, Dir: s.imageDir(digest)}
	t, err := s.readTags()
	if err != nil {
		return i, err
	}
	for key, d := range t.Tags {
		if d == digest {
			i.Tags = append(i.Tags, untagKey(key))
		}
	}
	slices.Sort(i.Tags)
	if i.Users, err = s.users(digest); err != nil {
		return i, err
	}
	data, err := os.ReadFile(filepath.Join(i.Dir, ManifestName))
	if err != nil {
		i.Problem = &DamagedError{Name: digest, Err: err}
		return i, nil //nolint:nilerr // a damaged image is listed, with its problem
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		i.Problem = &DamagedError{Name: digest, Err: errors.New("its manifest was altered")}
		return i, nil
	}
	i.Manifest, i.Problem = ParseManifest(digest, data)
	entries, err := os.ReadDir(i.Dir)
	if err != nil {
		return i, fmt.Errorf("list image %q: %w", digest, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		i.Size += info.Size()
		if e.Name() == ManifestName {
			i.Added = info.ModTime()
		}
	}
	return i, nil
}

// NotFoundError says that a store has no such image.
type NotFoundError struct{ Name, Arch string }

func (e *NotFoundError) Error() string {
	if e.Arch != "" {
		return fmt.Sprintf("find image %q for %q: it is not on this host", e.Name, e.Arch)
	}
	return fmt.Sprintf("find image %q: it is not on this host", e.Name)
}

// Hint names the next step.
func (e *NotFoundError) Hint() string {
	return "see `dev machine image ls`; get one with `dev machine image pull` or `dev machine image build`"
}

// minDigest is the fewest digits that name an image.
const minDigest = 6

// Find returns the image of a tag, or of a digest or its beginning (with or without "sha256:"). An architecture narrows a tag; empty means any when
// there is one only.
func (s *Store) Find(name, arch string) (Image, error) {
	list, err := s.List()
	if err != nil {
		return Image{}, err
	}
	digest := strings.TrimPrefix(name, "sha256:")
	var found []Image
	for _, i := range list {
		byDigest := len(digest) >= minDigest && strings.HasPrefix(i.Digest, digest)
		byTag := slices.Contains(i.Tags, name) && (arch == "" || i.Manifest != nil && i.Manifest.Arch == arch)
		if byDigest || byTag {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return Image{}, &NotFoundError{Name: name, Arch: arch}
	case 1:
		return found[0], nil
	}
	return Image{}, fmt.Errorf("find image %q: it names %d images: give a longer digest, or an architecture", name, len(found))
}

// Use notes that an owner (a machine's name) uses an image, so that Prune keeps it. It may be called again.
func (s *Store) Use(ctx context.Context, digest, owner string) error {
	if !word.MatchString(owner) || strings.ContainsAny(owner, "/*?") || !hexDigest.MatchString(digest) {
		return fmt.Errorf("use image %q: owner %q is not a name", digest, owner)
	}
	return s.locked(ctx, func() error {
		if _, err := os.Stat(s.imageDir(digest)); err != nil {
			return &NotFoundError{Name: digest}
		}
		return atomicfile.Write(filepath.Join(s.usesDir(digest), owner), nil, 0o644)
	})
}

// Release takes Use back; it is no error when the image was not used.
func (s *Store) Release(ctx context.Context, digest, owner string) error {
	return s.locked(ctx, func() error {
		err := os.Remove(filepath.Join(s.usesDir(digest), filepath.Base(owner)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release image %q: %w", digest, err)
		}
		return nil
	})
}

func (s *Store) users(digest string) ([]string, error) {
	entries, err := os.ReadDir(s.usesDir(digest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list users of image %q: %w", digest, err)
	}
	var users []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // a note that a crash left half written
			users = append(users, e.Name())
		}
	}
	return users, nil
}

// Disk makes sure that the image has its UEFI disk, which is not distributed, and returns the file.
func (s *Store) Disk(ctx context.Context, i Image) (string, error) {
	name := filepath.Join(i.Dir, DiskName)
	if i.Manifest == nil {
		return "", i.Problem
	}
	err := s.locked(ctx, func() error {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		part := name + ".part"
		if err := MakeDisk(i.Dir, i.Manifest, part); err != nil {
			return errors.Join(err, os.Remove(part))
		}
		if want := i.Manifest.Disk; want != nil {
			got, err := describeFile(i.Dir, DiskName+".part")
			if err != nil {
				return err
			}
			if got.SHA256 != want.SHA256 {
				return &DamagedError{Name: i.Digest, Err: fmt.Errorf("the disk made of it has SHA-256 %s, the manifest says %s", got.SHA256, want.SHA256)}
			}
		}
		return errors.Join(os.Chmod(part, 0o444), os.Rename(part, name), atomicfile.SyncDir(i.Dir))
	})
	return name, err
}

// PruneOptions say what Prune may remove besides images without tag and user.
type PruneOptions struct {
	// All removes tagged images too, Damaged only those that cannot be used. Images in use stay in any case.
	All, Damaged bool
}

// Prune removes images that no machine uses, and what was left under way. It returns what it removed.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (removed []Image, err error) {
	err = s.locked(ctx, func() error {
		list, err := s.List()
		if err != nil {
			return err
		}
		for _, i := range list {
			if len(i.Users) > 0 || !o.removes(i) {
				continue
			}
			if err := s.remove(i); err != nil {
				return err
			}
			removed = append(removed, i)
		}
		return s.sweep()
	})
	return removed, err
}

func (o PruneOptions) removes(i Image) bool {
	if o.Damaged {
		problem := i.Problem
		if problem == nil {
			_, problem = Verify(i.Dir)
		}
		return problem != nil
	}
	return o.All || len(i.Tags) == 0
}

// remove takes an image away: aside first, so that a crash leaves no half image.
func (s *Store) remove(i Image) error {
	t, err := s.readTags()
	if err != nil {
		return err
	}
	for key, d := range t.Tags {
		if d == i.Digest {
			delete(t.Tags, key)
		}
	}
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	aside := filepath.Join(s.Dir, ".tmp-removed-"+i.Digest)
	if err := errors.Join(atomicfile.Write(s.tagFile(), append(data, '\n'), 0o644), os.Rename(i.Dir, aside)); err != nil {
		return fmt.Errorf("remove image %q: %w", i.Digest, err)
	}
	return removeTree(aside)
}

// sweepAge is how old work under way is when nobody can be at it any more.
const sweepAge = 24 * time.Hour

// sweep removes what crashes left.
func (s *Store) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.Dir, ".tmp-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < sweepAge && !strings.Contains(dir, ".tmp-removed-") {
			continue
		}
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a folder of read-only files, which Windows does not remove as they are.
func removeTree(dir string) error {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(name, 0o644)
		}
		return err
	})
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("remove %q: %w", dir, err)
	}
	return nil
}

// copyAll copies and reports; a helper of pulls and pushes.
func copyAll(w io.Writer, r io.Reader, report func(done int64)) (int64, error) {
	var n int64
	buf := make([]byte, 1<<20)
	for {
		k, err := r.Read(buf)
		if k > 0 {
			if _, err := w.Write(buf[:k]); err != nil {
				return n, err
			}
			n += int64(k)
			report(n)
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
