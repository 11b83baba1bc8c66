// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/seed71221737/dev/vmimage/deb"
)

const (
	// maxRelease bounds an InRelease file in bytes; Debian's have 150 kB.
	maxRelease = 8 << 20
	// snapshotLag is added to the newest release's date: the snapshot service takes up a release some hours after it was signed.
	snapshotLag = 12 * time.Hour
)

// RefreshOptions are what a new lock is resolved with.
type RefreshOptions struct {
	Keyring   []byte
	Mirrors   Mirrors
	Downloads *Downloads
	Arches    []string
	// Now is the time by which a release must not have expired.
	Now time.Time
}

// Refresh resolves a spec against the archive as it is now.
func Refresh(ctx context.Context, s *Spec, o RefreshOptions) (*Lock, error) {
	keys, err := deb.ParseKeyring(o.Keyring)
	if err != nil {
		return nil, fmt.Errorf("read archive keys: %w", err)
	}
	r := refresher{spec: s, o: o, keys: keys, lock: &Lock{Schema: LockSchema, Spec: s.digest, Packages: map[string][]LockedPackage{}}}
	lists := map[string][][]deb.Package{}
	for _, a := range s.Archives {
		for _, suite := range a.Suites {
			if err := r.suite(ctx, a, suite, lists); err != nil {
				return nil, err
			}
		}
	}
	for _, arch := range o.Arches {
		if r.lock.Packages[arch], err = resolve(s, arch, deb.NewUniverse(arch, lists[arch]...)); err != nil {
			return nil, fmt.Errorf("resolve image for %q: %w", arch, err)
		}
	}
	r.lock.Timestamp = r.lock.Timestamp.Add(snapshotLag)
	return r.lock, nil
}

type refresher struct {
	spec *Spec
	o    RefreshOptions
	keys deb.Keyring
	lock *Lock
}

// suite verifies a suite's release and collects its packages by architecture.
func (r *refresher) suite(ctx context.Context, a Archive, suite string, lists map[string][][]deb.Package) error {
	bases := r.o.Mirrors.URLs(a.Name, time.Time{})
	name := a.Name + "/dists/" + suite + "/InRelease"
	data, err := r.o.Downloads.fetchSmall(ctx, name, suffixed(bases, "dists/"+suite+"/InRelease"), maxRelease)
	if err != nil {
		return err
	}
	release, err := deb.VerifyRelease(name, data, r.keys)
	if err != nil {
		return err
	}
	if release.Codename != suite && release.Suite != suite {
		return fmt.Errorf("verify %q: it is the release of %q", name, release.Codename)
	}
	if !release.ValidUntil.IsZero() && r.o.Now.After(release.ValidUntil) {
		return fmt.Errorf("verify %q: it expired on %s: the mirror stands still, or this machine's clock is wrong", name, release.ValidUntil.Format(time.RFC1123))
	}
	sum := sha256.Sum256(data)
	r.lock.Releases = append(r.lock.Releases, LockedRelease{Archive: a.Name, Suite: suite, Date: release.Date, SignedBy: release.SignedBy, SHA256: hex.EncodeToString(sum[:])})
	if release.Date.After(r.lock.Timestamp) {
		r.lock.Timestamp = release.Date
	}
	for _, component := range a.Components {
		for _, arch := range r.o.Arches {
			list, err := r.index(ctx, a.Name, suite, release, component, arch, bases)
			if err != nil {
				return err
			}
			lists[arch] = append(lists[arch], list)
		}
	}
	return nil
}

func (r *refresher) index(ctx context.Context, archive, suite string, release *deb.Release, component, arch string, bases []string) ([]deb.Package, error) {
	f, err := release.Index(component, arch)
	if err != nil {
		return nil, err
	}
	dir := "dists/" + suite + "/"
	name, err := r.o.Downloads.Fetch(ctx, Blob{
		Name: archive + "/" + dir + f.Path, SHA256: f.SHA256, Size: f.Size,
		URLs: append(suffixed(bases, dir+f.ByHash), suffixed(bases, dir+f.Path)...),
	})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read package index: %w", err)
	}
	return deb.ParseIndex(f, data, archive)
}

func suffixed(bases []string, suffix string) []string {
	var urls []string
	for _, b := range bases {
		urls = append(urls, b+suffix)
	}
	return urls
}

// resolve lists the packages of an image: the root's, the kernel and the stub.
func resolve(s *Spec, arch string, u *deb.Universe) ([]LockedPackage, error) {
	root, err := u.Resolve(s.Packages, s.Without)
	if err != nil {
		return nil, err
	}
	var list []LockedPackage
	for _, p := range root {
		list = append(list, locked(p, ""))
	}
	kernel, err := kernelOf(u, s.kernelPackage(arch))
	if err != nil {
		return nil, err
	}
	stub := u.Find(s.Stub)
	if stub == nil {
		return nil, &deb.UnsatisfiedError{Relation: s.Stub}
	}
	return append(list, locked(*kernel, roleKernel), locked(*stub, roleStub)), nil
}

// kernelOf finds the package with the kernel itself: the one named, or the one that a meta-package of that name depends on. What else a kernel
// depends on (initramfs-tools) is for hosts that make their own initial RAM disk.
func kernelOf(u *deb.Universe, name string) (*deb.Package, error) {
	p := u.Find(name)
	if p == nil {
		return nil, &deb.UnsatisfiedError{Relation: name}
	}
	for _, group := range p.Depends {
		for _, r := range group {
			const prefix = "linux-image-"
			if len(r.Name) > len(prefix) && r.Name[:len(prefix)] == prefix {
				if real := u.Find(r.Name); real != nil {
					return real, nil
				}
			}
		}
	}
	return p, nil
}

func locked(p deb.Package, role string) LockedPackage {
	return LockedPackage{
		Name: p.Name, Version: p.Version, Source: p.Source, Role: role,
		Archive: p.Archive, Filename: p.Filename, Size: p.Size, SHA256: p.SHA256,
	}
}
