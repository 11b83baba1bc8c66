// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// Cache keeps what Compose files came to, so that files which did not change are not parsed, validated and decoded by every command. It may forget
// anything at any time; what it gives back is checked. Implementations are safe for concurrent use, also by several processes.
//
// What is kept under a name is what compose-go made of *all* its inputs, and the name is a digest of all of them: this program, the options, the
// whole environment and the files' contents. Of inputs that are not known before the files are decoded (files that these include, extend or take
// labels from, symbolic links on watched paths) nothing is kept. Looking for files, reading .env and env_file, selecting services and fitting a
// project into an environment happen each time. docs/adr/0006-project-cache.md has the reasons.
type Cache interface {
	// Program identifies this build of the program; another one may decode files in another way. Empty: nothing is kept.
	Program() string
	// Get returns what was put under the name, or nil.
	Get(name string) []byte
	// Put keeps the content under the name, if it can.
	Put(name string, content []byte)
}

// decoded is what the loader made of the files, and all else that came of it.
type decoded struct {
	Project *types.Project // without its environment
	// Variables are those that the loader added to the environment.
	Variables map[string]string
	Unset     []string
	Warnings  []Warning
}

// decode turns the files into a project: from the cache if it has what they come to.
func (r *reading) decode(ctx context.Context) (*types.Project, error) {
	if r.o.Cache == nil || r.o.Cache.Program() == "" {
		return r.parse(ctx)
	}
	entry := sealedEntry(r.inputs())
	if d := entry.open(r.o.Cache.Get(entry.name)); d != nil {
		return r.recall(d), nil
	}
	d := decoded{}
	warn := r.o.Warn
	r.o.Warn = func(w Warning) { d.Warnings = append(d.Warnings, w); warn(w) }
	before := maps.Clone(r.env)
	p, err := r.parse(ctx)
	r.o.Warn = warn
	if err != nil || r.readsMore || r.unset.ports || readsMore(p) {
		return p, err
	}
	for name, value := range p.Environment {
		if old, set := before[name]; !set || old != value {
			setIn(&d.Variables, name, value)
		}
		delete(before, name)
	}
	if len(before) > 0 { // the loader removed some: it never does
		return p, nil
	}
	bare := *p
	bare.Environment = nil
	d.Project, d.Unset = &bare, r.unset.names
	if content := entry.seal(&d); content != nil {
		r.o.Cache.Put(entry.name, content)
	}
	return p, nil
}

// recall does what parsing the files would have done.
func (r *reading) recall(d *decoded) *types.Project {
	for _, w := range d.Warnings {
		r.o.Warn(w)
	}
	r.unset.names = d.Unset
	maps.Copy(r.env, d.Variables)
	d.Project.Environment = maps.Clone(r.env)
	return d.Project
}

// parse has compose-go read the files, and notes whether these lead to others.
func (r *reading) parse(ctx context.Context) (*types.Project, error) {
	return loader.LoadWithContext(ctx, r.details(), r.configure, func(l *loader.Options) {
		l.Listeners = append(l.Listeners, func(event string, about map[string]any) {
			if event == "include" || event == "extends" && about["file"] != nil {
				r.readsMore = true
			}
		})
	})
}

// readsMore reports whether the loader has looked at more than the Compose files: label files, and where watched paths lead to.
func readsMore(p *types.Project) bool {
	more := func(s types.ContainerSpec) bool { return len(s.LabelFiles) > 0 }
	for _, s := range p.AllServices() {
		if more(s.ContainerSpec) || s.Develop != nil && len(s.Develop.Watch) > 0 {
			return true
		}
		if slices.ContainsFunc(s.PreStart, func(h types.PreStartHook) bool { return more(h.ContainerSpec) }) {
			return true
		}
	}
	for _, j := range p.Jobs {
		if more(j.ContainerSpec) {
			return true
		}
	}
	return false
}

// inputs is a digest of all that decides what the loader makes of the files.
func (r *reading) inputs() [sha256.Size]byte {
	h := sha256.New()
	var length [8]byte
	add := func(texts ...string) { // each with its length, so that no two lists of texts look the same
		binary.LittleEndian.PutUint64(length[:], uint64(len(texts)))
		h.Write(length[:])
		for _, text := range texts {
			binary.LittleEndian.PutUint64(length[:], uint64(len(text)))
			h.Write(length[:])
			h.Write([]byte(text))
		}
	}
	home, _ := os.UserHomeDir() // "~" in a path; the loader goes without one, too
	o := r.o
	add(r.o.Cache.Program(), home, r.projectDir, r.name, fmt.Sprint(r.named, len(o.Remotes),
		o.NoInterpolate, o.NoNormalize, o.NoPathResolution, o.NoConsistency))
	add(r.profiles()...)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		env = append(env, name, r.env[name])
	}
	add(env...)
	for _, f := range r.files.given {
		add(f.name, string(f.content))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// entry is the place of a project in the cache. Files and variables hold secrets, and so does what they come to: it is encrypted with a key that only
// those can make who have the inputs, so that the cache tells nothing to anybody else, and what does not belong to the inputs cannot be opened.
type entry struct {
	name string
	aead cipher.AEAD
}

func sealedEntry(inputs [sha256.Size]byte) entry {
	name := sha256.Sum256(append([]byte("name"), inputs[:]...))
	key := sha256.Sum256(append([]byte("key"), inputs[:]...))
	e := entry{name: hex.EncodeToString(name[:])}
	if block, err := aes.NewCipher(key[:]); err == nil {
		e.aead, _ = cipher.NewGCMWithRandomNonce(block) // nil: nothing is kept
	}
	return e
}

// open returns what was sealed, or nil if this is not it.
func (e entry) open(content []byte) *decoded {
	if e.aead == nil || len(content) == 0 {
		return nil
	}
	plain, err := e.aead.Open(nil, nil, content, nil)
	if err != nil {
		return nil
	}
	return unflatten[decoded](string(plain))
}

// seal returns what open turns into d again, or nil if there is a value in it that cannot be kept. It makes sure.
func (e entry) seal(d *decoded) []byte {
	plain, ok := flatten(d)
	if e.aead == nil || !ok || !reflect.DeepEqual(unflatten[decoded](plain), d) {
		return nil
	}
	return e.aead.Seal(nil, nil, []byte(plain), nil)
}

func setIn(m *map[string]string, name, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[name] = value
}
