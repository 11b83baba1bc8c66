// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package remote fetches Compose files from git repositories and from registries, and publishes them there.
//
// What was fetched is kept in a cache whose folders are named after what is in them, a commit or a digest, and never change: they are made
// elsewhere and renamed into place. Nothing that was fetched is run here: git's hooks, filters and further protocols are off.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
)

// Options say where fetched files are kept and how registries and repositories are asked.
type Options struct {
	// Cache is the folder for what was fetched.
	Cache string
	// DockerDir is the folder of docker's settings, with the registries' credentials.
	DockerDir string
	// Environ is the process's environment, as os.Environ returns it: git is run with it. COMPOSE_EXPERIMENTAL_GIT_REMOTE and
	// COMPOSE_EXPERIMENTAL_OCI_REMOTE, when false, forbid repositories and registries.
	Environ []string
	// Insecure are registries that are spoken to without TLS; those on the loopback always are.
	Insecure []string
	// Offline fetches nothing, and fails where the cache does not have it.
	Offline bool
	Logger  *slog.Logger
}

// Fetcher fetches Compose files. It is safe for concurrent use.
type Fetcher struct {
	o Options

	mu    sync.Mutex
	known map[string]string // local files by address
	order []string          // addresses, as they came
}

// New makes a fetcher. It touches nothing.
func New(o Options) *Fetcher {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fetcher{o: o, known: map[string]string{}}
}

// Loaders are the fetcher as compose-go takes it: one for git and one for registries.
func (f *Fetcher) Loaders() []loader.ResourceLoader {
	return []loader.ResourceLoader{resource{f, IsGit, f.git}, resource{f, isOCI, f.oci}}
}

// Fetched are the addresses that files were fetched from, in that order.
func (f *Fetcher) Fetched() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.order)
}

// resource is the files of one kind of address.
type resource struct {
	f      *Fetcher
	accept func(address string) bool
	fetch  func(ctx context.Context, address string) (string, error)
}

// Accept implements [loader.ResourceLoader].
func (r resource) Accept(address string) bool { return r.accept(address) }

// Load implements [loader.ResourceLoader]: it fetches once for each fetcher.
func (r resource) Load(ctx context.Context, address string) (string, error) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if local, ok := r.f.known[address]; ok {
		return local, nil
	}
	local, err := r.fetch(ctx, address)
	if err != nil {
		return "", fmt.Errorf("fetch compose file %q: %w", address, err)
	}
	r.f.known[address] = local
	r.f.order = append(r.f.order, address)
	return local, nil
}

// Dir implements [loader.ResourceLoader]: the folder of the local copy.
func (r resource) Dir(address string) string {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if local, ok := r.f.known[address]; ok {
		return filepath.Dir(local)
	}
	if filepath.IsAbs(address) {
		return filepath.Dir(address)
	}
	return address
}

// allowed checks one of docker compose's variables that can switch a kind of address off.
func (f *Fetcher) allowed(name string) error {
	value := getenv(f.o.Environ, name)
	if value == "" {
		return nil
	}
	on, err := strconv.ParseBool(value)
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %q is neither true nor false", name, value)
	case !on:
		return fmt.Errorf("switched off by %s", name)
	}
	return nil
}

// keep puts a folder into the cache under its name: build fills it elsewhere first. Somebody else may do the same at the same time: the contents
// are the same, so that either will do.
func (f *Fetcher) keep(name string, build func(dir string) error) (dir string, err error) {
	dir = filepath.Join(f.o.Cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if f.o.Offline {
		return "", errors.New("it is not in the cache, and nothing is to be fetched now")
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(parent, ".new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := build(temp); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, statErr := os.Stat(dir); statErr != nil {
			return "", err
		}
	}
	return dir, nil
}

// composeFile finds the Compose file that an address means in a folder: the file at path, or the one with a usual name in the folder there. It must
// not lead out of the folder, by .. or by symbolic links.
func composeFile(dir, path string) (string, error) {
	if path != "" && !filepath.IsLocal(filepath.FromSlash(path)) {
		return "", fmt.Errorf("%q leads out of it", path)
	}
	file := filepath.Join(dir, filepath.FromSlash(path))
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("there is no %q in it", path)
	}
	if info.IsDir() {
		if file, err = pick(file); err != nil {
			return "", err
		}
	}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", err
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if inside, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(inside) {
		return "", fmt.Errorf("%q leads out of it", path)
	}
	return file, nil
}

// pick is the Compose file in a folder.
func pick(dir string) (string, error) {
	for _, name := range cli.DefaultFileNames {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			return file, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("there is no %s in that folder", strings.Join(cli.DefaultFileNames, ", "))
}

func getenv(environ []string, name string) (value string) {
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// hinted is an error with what to do.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// Hint says what to do.
func (e *hinted) Hint() string { return e.hint }
