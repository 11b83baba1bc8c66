// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"gopkg.in/yaml.v3"
)

// LockName is the name of the lock file, beside the first Compose file.
const LockName = "compose.lock"

// lockVersion is the version of the lock file's form.
const lockVersion = 1

// Lock says which image each name stands for, so that everybody runs and builds on the same ones.
type Lock struct {
	Version int `yaml:"version"`
	// Images are by the name as the Compose files or Dockerfiles have it.
	Images map[string]LockedImage `yaml:"images"`
	// Contexts are the git repositories that builds take their files from, by the address as the Compose files have it.
	Contexts map[string]LockedContext `yaml:"contexts,omitempty"`
}

// LockedContext is what the address of a repository stands for.
type LockedContext struct {
	Commit string   `yaml:"commit"`
	UsedBy []string `yaml:"used-by,flow"`
}

// LockedImage is what a name stands for.
type LockedImage struct {
	Digest string `yaml:"digest"`
	// Platforms are the digests for each platform, of an image that is made for several: for people and tools, as Digest names them all.
	Platforms map[string]string `yaml:"platforms,omitempty"`
	// UsedBy are the services that run the image, and the builds ("build of web") that are based on it.
	UsedBy []string `yaml:"used-by,flow"`
}

// LockNeed is an image, or a repository that a build takes files from, that a project uses by a name whose meaning may change.
type LockNeed struct {
	Ref string
	// Context: it is a repository's address.
	Context bool
	UsedBy  []string
	// Services are those that run the image or are built on it.
	Services []string
}

// NewLock is a lock without images.
func NewLock() Lock { return Lock{Version: lockVersion, Images: map[string]LockedImage{}} }

// ParseLock reads a lock file; name stands in errors.
func ParseLock(name string, data []byte) (Lock, error) {
	l := Lock{}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&l); err != nil {
		return l, &hintedError{fmt.Errorf("read lock file %q: %w", name, err), "dev lock writes it anew"}
	}
	if l.Version != lockVersion {
		return l, fmt.Errorf("read lock file %q: version %d is not supported (this dev reads %d)", name, l.Version, lockVersion)
	}
	for ref, image := range l.Images {
		if _, err := pinned(ref, image.Digest); err != nil {
			return l, &hintedError{fmt.Errorf("read lock file %q: image %q: %w", name, ref, err), "dev lock --update writes it anew"}
		}
	}
	for address, c := range l.Contexts {
		if !wholeCommit(c.Commit) {
			return l, &hintedError{fmt.Errorf("read lock file %q: context %q: %q is no commit", name, address, c.Commit), "dev lock --update writes it anew"}
		}
	}
	if l.Images == nil {
		l.Images = map[string]LockedImage{}
	}
	return l, nil
}

// Encode writes the lock file's text, the same for the same lock.
func (l Lock) Encode() ([]byte, error) {
	b := bytes.NewBufferString("# Written by dev lock. Keep it with the Compose files: dev up runs and builds on these images.\n")
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	if err := enc.Encode(l); err != nil {
		return nil, fmt.Errorf("encode lock file: %w", err)
	}
	return b.Bytes(), enc.Close()
}

// pinned is the name with the digest.
func pinned(ref, digest string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", err
	}
	full, err := reference.ParseNormalizedNamed(reference.TagNameOnly(named).String() + "@" + digest)
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(full), nil
}

// lockable reports whether what a name stands for may change: it is no digest and no ID.
func lockable(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	_, digested := named.(reference.Digested)
	return !digested
}

// LockNeeds lists what a lock of the project has to have. bases gives the images that builds are based on, by service.
func LockNeeds(p *types.Project, bases map[string][]string) []LockNeed {
	needs := map[string]*LockNeed{}
	add := func(ref, by, service string) {
		if !lockable(ref) {
			return
		}
		n := needs[ref]
		if n == nil {
			n = &LockNeed{Ref: ref}
			needs[ref] = n
		}
		n.UsedBy, n.Services = append(n.UsedBy, by), append(n.Services, service)
	}
	all := p.AllServices()
	built := builtImages(all)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := all[name]
		if s.Build == nil && s.Image != "" && !built[s.Image] && s.Provider == nil {
			add(s.Image, name, name)
		}
		for _, ref := range imageMounts(s) {
			add(ref, name, name)
		}
		for _, ref := range slices.Concat(bases[name], imageContexts(s)) {
			if !built[ref] {
				add(ref, "build of "+name, name)
			}
		}
	}
	var out []LockNeed
	for _, ref := range slices.Sorted(maps.Keys(needs)) {
		out = append(out, *needs[ref])
	}
	return out
}

// ContextNeeds lists the repositories that a lock of the project has to have. isGit tells them from other contexts.
func ContextNeeds(p *types.Project, isGit func(address string) bool) []LockNeed {
	needs := map[string]*LockNeed{}
	all := p.AllServices()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b := all[name].Build
		if b == nil {
			continue
		}
		for _, address := range slices.Compact(slices.Sorted(slices.Values(append(slices.Collect(maps.Values(b.AdditionalContexts)), b.Context)))) {
			if ref, _, _ := strings.Cut(fragment(address), ":"); !isGit(address) || wholeCommit(ref) {
				continue
			}
			if needs[address] == nil {
				needs[address] = &LockNeed{Ref: address, Context: true}
			}
			n := needs[address]
			n.UsedBy, n.Services = append(n.UsedBy, "build of "+name), append(n.Services, name)
		}
	}
	var out []LockNeed
	for _, address := range slices.Sorted(maps.Keys(needs)) {
		out = append(out, *needs[address])
	}
	return out
}

// fragment is what stands behind the # of a repository's address: REF:FOLDER.
func fragment(address string) string {
	_, f, _ := strings.Cut(address, "#")
	return f
}

// wholeCommit reports whether a reference is a commit, which never means another one.
func wholeCommit(ref string) bool {
	return (len(ref) == 40 || len(ref) == 64) && strings.Trim(ref, "0123456789abcdef") == ""
}

// pinContext is the address with the commit that the lock has for it.
func (l Lock) pinContext(address string) string {
	locked, ok := l.Contexts[address]
	if !ok {
		return address
	}
	repository, f, _ := strings.Cut(address, "#")
	pin := repository + "#" + locked.Commit
	if _, folder, ok := strings.Cut(f, ":"); ok {
		pin += ":" + folder
	}
	return pin
}

// Locked is the digest or commit that the lock has for a need.
func (l Lock) Locked(n LockNeed) (id string, ok bool) {
	if n.Context {
		c, ok := l.Contexts[n.Ref]
		return c.Commit, ok
	}
	i, ok := l.Images[n.Ref]
	return i.Digest, ok
}

// imageContexts are the images that a service's build is given as named contexts.
func imageContexts(s types.ServiceConfig) (refs []string) {
	if s.Build == nil {
		return nil
	}
	for _, context := range s.Build.AdditionalContexts {
		if ref, ok := strings.CutPrefix(context, imageContext); ok {
			refs = append(refs, ref)
		}
	}
	slices.Sort(refs)
	return refs
}

// builtImages are the names of images that services build: they come from no registry.
func builtImages(all types.Services) map[string]bool {
	built := map[string]bool{}
	for _, s := range all {
		if s.Build != nil && s.Image != "" {
			built[s.Image] = true
		}
	}
	return built
}

// Drift compares the lock with what the project needs: names that it lacks, and names that nothing uses any more.
func (l Lock) Drift(needs []LockNeed) (missing, unused []string) {
	used := map[string]bool{}
	for _, n := range needs {
		used[n.Ref] = true
		if _, ok := l.Locked(n); !ok {
			missing = append(missing, n.Ref)
		}
	}
	for _, ref := range slices.Concat(slices.Sorted(maps.Keys(l.Images)), slices.Sorted(maps.Keys(l.Contexts))) {
		if !used[ref] {
			unused = append(unused, ref)
		}
	}
	return missing, unused
}

// Apply returns the project with the images that the lock has pinned to their digests: those that services run, mount and are built on. The project given is not changed.
func (l Lock) Apply(p *types.Project, bases map[string][]string) *types.Project {
	out := *p
	built := builtImages(p.AllServices())
	out.Services, out.DisabledServices = l.services(p.Services, built, bases), l.services(p.DisabledServices, built, bases)
	return &out
}

// pin is the name with the digest that the lock has for it.
func (l Lock) pin(ref string) (string, bool) {
	image, ok := l.Images[ref]
	if !ok || !lockable(ref) {
		return ref, false
	}
	pin, err := pinned(ref, image.Digest)
	if err != nil {
		return ref, false // ParseLock has checked it
	}
	return pin, true
}

func (l Lock) services(all types.Services, built map[string]bool, bases map[string][]string) types.Services {
	out := maps.Clone(all)
	for name, s := range all {
		if s.Build == nil && !built[s.Image] {
			s.Image, _ = l.pin(s.Image)
		}
		s.Volumes = slices.Clone(s.Volumes)
		for i, v := range s.Volumes {
			if v.Type == types.VolumeTypeImage {
				s.Volumes[i].Source, _ = l.pin(v.Source)
			}
		}
		if s.Build != nil {
			build := *s.Build
			build.Context = l.pinContext(build.Context)
			build.AdditionalContexts = maps.Clone(build.AdditionalContexts)
			for key, address := range build.AdditionalContexts {
				build.AdditionalContexts[key] = l.pinContext(address)
				if ref, ok := strings.CutPrefix(address, imageContext); ok && !built[ref] {
					pin, _ := l.pin(ref)
					build.AdditionalContexts[key] = imageContext + pin
				}
			}
			build.AdditionalContexts = l.contexts(build.AdditionalContexts, bases[name])
			s.Build = &build
		}
		out[name] = s
	}
	return out
}

// contexts adds a named context for each image that a build is based on: it takes the place of the name in the Dockerfile.
func (l Lock) contexts(have types.Mapping, bases []string) types.Mapping {
	out := maps.Clone(have)
	for _, ref := range bases {
		pin, ok := l.pin(ref)
		if _, taken := out[contextName(ref)]; !ok || taken {
			continue
		}
		if out == nil {
			out = types.Mapping{}
		}
		out[contextName(ref)] = imageContext + pin
	}
	return out
}

// contextName is the name under which a build looks for a context in place of an image.
func contextName(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}
