// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// DefaultImage is the tag of the image that a machine gets where its spec names none.
const DefaultImage = "local"

// CreateOptions say what Create does besides making the machine.
type CreateOptions struct {
	// Start starts the machine at once. A machine that does not start is kept.
	Start bool
}

// Create makes a machine. Spec.Image may be a tag or the beginning of a digest, and empty for DefaultImage. The machine's folder is made aside and moved
// into place, so that a machine is there as a whole or not at all.
func (s *Store) Create(ctx context.Context, name string, spec Spec, o CreateOptions, sink Sink) (*Machine, error) {
	if err := s.make(ctx, name, spec.clone(), sink); err != nil {
		return nil, err
	}
	m, err := s.Get(name)
	if err != nil || !o.Start {
		return m, err
	}
	return m, m.Start(ctx, sink)
}

func (s *Store) make(ctx context.Context, name string, spec Spec, sink Sink) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := s.dir(name).checkSockets(); err != nil {
		return fmt.Errorf("create machine %q: %w", name, err)
	}
	driver, err := s.complete(ctx, name, &spec)
	if err != nil {
		return err
	}
	unlock, err := s.lockMachine(ctx, name, sink)
	if err != nil {
		return err
	}
	defer unlock()
	s.sweep(name)
	s.sweepUses(ctx, name)
	if err := s.checkFree(name); err != nil {
		return err
	}
	sink.say(name, "making the machine")
	if err := s.Images.Use(ctx, spec.Image, name); err != nil {
		return fmt.Errorf("create machine %q: %w", name, err)
	}
	if err := s.install(ctx, name, driver, spec); err != nil {
		return errors.Join(fmt.Errorf("create machine %q: %w", name, err), s.Images.Release(context.WithoutCancel(ctx), spec.Image, name))
	}
	return nil
}

// CheckNew says what is wrong with the name or the spec of a machine to be made, before an image is looked for: that may take minutes.
func CheckNew(name string, spec Spec) error {
	if err := CheckName(name); err != nil {
		return err
	}
	spec.Version, spec.Image, spec.Previous = SpecVersion, strings.Repeat("0", 64), ""
	return spec.Validate(name)
}

// complete fills in and checks a new machine's spec.
func (s *Store) complete(ctx context.Context, name string, spec *Spec) (Driver, error) {
	driver := s.Drivers[spec.Driver]
	if driver == nil {
		return nil, fmt.Errorf("create machine %q: %w", name, s.unknownDriver(spec.Driver))
	}
	if spec.Image == "" {
		spec.Image = DefaultImage
	}
	image, err := s.Images.Find(spec.Image, spec.Arch)
	if err != nil {
		return nil, fmt.Errorf("create machine %q: %w", name, err)
	}
	if image.Problem != nil {
		return nil, fmt.Errorf("create machine %q: %w", name, image.Problem)
	}
	if image.Manifest.Arch != spec.Arch {
		return nil, fmt.Errorf("create machine %q: image %q is for %q and the machine for %q", name, spec.Image, image.Manifest.Arch, spec.Arch)
	}
	spec.Version, spec.Image, spec.Previous, spec.DataOldest = SpecVersion, image.Digest, "", 0
	if _, oldest := image.Manifest.DataLayout(); oldest > 1 { // 1 goes without saying
		spec.DataOldest = oldest
	}
	return driver, s.accept(ctx, name, driver, *spec)
}

// accept checks a spec by itself, with its driver, and on this host.
func (s *Store) accept(ctx context.Context, name string, driver Driver, spec Spec) error {
	if err := spec.Validate(name); err != nil {
		return err
	}
	if v, ok := driver.(Validator); ok {
		if err := v.Validate(spec); err != nil {
			return fmt.Errorf("use the spec of machine %q: %w", name, err)
		}
	}
	if err := driver.Check(ctx, spec); err != nil {
		return &CheckError{Driver: spec.Driver, Err: err}
	}
	return nil
}

// checkFree says whether the name is taken, also where a file system does not tell upper from lower case.
func (s *Store) checkFree(name string) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list machines: %w", err)
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			return &ExistsError{Name: name, Other: e.Name()}
		}
	}
	return nil
}

// install builds the folder aside and moves it into place. The caller holds the machine's lock.
func (s *Store) install(ctx context.Context, name string, driver Driver, spec Spec) (err error) {
	tmp := s.aside(name)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	dir := Dir(tmp)
	if err := furnish(dir, name, spec); err != nil {
		return err
	}
	if err := driver.Prepare(ctx, dir, spec); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, string(s.dir(name))); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.Dir)
}

// makeIdentity gives a machine an identity that no other has.
func makeIdentity(dir Dir) error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	return os.WriteFile(dir.ID(), []byte(hex.EncodeToString(id)+"\n"), 0o600)
}

// furnish makes the files of a new machine.
func furnish(dir Dir, name string, spec Spec) error {
	if err := makeIdentity(dir); err != nil {
		return err
	}
	if err := makeKeys(dir, name); err != nil {
		return err
	}
	if _, err := ensureCertificates(dir, certificateRequest{Name: name, SANs: spec.tlsNames()}); err != nil {
		return err
	}
	if err := makeDisk(dir.DataDisk(), spec.DiskMiB); err != nil {
		return err
	}
	return writeSpec(dir, spec)
}

// makeDisk makes an empty sparse disk.
func makeDisk(name string, mebibytes int) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(makeSparse(f), f.Truncate(int64(mebibytes)<<20), f.Close())
}

// GrowDisk makes a data disk as large as the spec says. It never shrinks one, and never makes one: an empty disk in place of a lost one would pass for
// the user's data.
func GrowDisk(name string, mebibytes int) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the data disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the data disk: %w", err)
	}
	if want := int64(mebibytes) << 20; info.Size() < want {
		if err := errors.Join(f.Truncate(want), f.Sync()); err != nil {
			return fmt.Errorf("grow the data disk: %w", err)
		}
	}
	return nil
}

// syncTree makes a folder's files and names durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return atomicfile.SyncDir(name)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// aside is a new name for a folder that is being made or taken away.
func (s *Store) aside(name string) string {
	return filepath.Join(s.Dir, tmpPrefix+name+"-"+strings.ToLower(rand.Text()[:10]))
}

// sweep removes what crashes left of machines that nobody is working on now, besides the caller, who holds the lock of one. It is best effort.
func (s *Store) sweep(locked string) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), tmpPrefix)
		end := strings.LastIndexByte(rest, '-')
		if !ok || end < 0 {
			continue
		}
		s.sweepOne(e.Name(), rest[:end], locked)
	}
}

// sweepOne removes one folder under the lock of its machine; where another command holds it, the folder is that command's.
func (s *Store) sweepOne(folder, name, locked string) {
	if name != locked {
		unlock, ok := s.tryLock(name)
		if !ok {
			return
		}
		defer unlock()
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, folder)); err != nil {
		s.Logger.Warn("remove what a crash left", "folder", folder, "error", err)
	}
}

// sweepUses takes back the use of images by machines that were never made, or whose removal was cut off.
func (s *Store) sweepUses(ctx context.Context, locked string) {
	images, err := s.Images.List()
	if err != nil {
		return // whoever needs an image says it
	}
	for _, image := range images {
		for _, user := range image.Users {
			s.sweepUse(ctx, image.Digest, user, locked)
		}
	}
}

func (s *Store) sweepUse(ctx context.Context, digest, user, locked string) {
	if CheckName(user) != nil {
		return // not a machine's
	}
	if user != locked {
		unlock, ok := s.tryLock(user)
		if !ok {
			return
		}
		defer unlock()
	}
	if _, err := os.Stat(string(s.dir(user))); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := s.Images.Release(ctx, digest, user); err != nil {
		s.Logger.Warn("take back the use of an image", "image", digest, "machine", user, "error", err)
	}
}
