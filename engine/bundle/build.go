// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// outputs are the files a build leaves.
type outputs struct{ Archive, Manifest, Inputs string }

func outputsIn(dir, arch string) outputs {
	base := filepath.Join(dir, "engine-linux-"+arch)
	return outputs{Archive: base + ".tar.zst", Manifest: base + ".json", Inputs: base + ".inputs"}
}

// build makes the bundle for t from the module in dir, unless it is there. Of
// several builds into the same folder one works, and the others find its result.
func build(ctx context.Context, t target, dir, outDir string, progress io.Writer) error {
	out := outputsIn(outDir, t.Arch)
	in, err := inputs(ctx, dir, t)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return err
	}
	work := filepath.Join(outDir, ".engine-"+t.Arch)
	lock := flock.New(work + ".lock")
	if _, err := lock.TryLockContext(ctx, 250*time.Millisecond); err != nil {
		return fmt.Errorf("wait for another build of the engine: %w", err)
	}
	defer lock.Unlock()
	if upToDate(out, in) {
		fmt.Fprintf(progress, "engine linux/%s: up to date\n", t.Arch)
		return nil
	}
	// What a killed build has left goes first.
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	return buildIn(ctx, work, t, dir, out, in, progress)
}

// buildIn does the work of build in the folder root.
func buildIn(ctx context.Context, root string, t target, dir string, out outputs, in string, progress io.Writer) error {
	p, err := readPins(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "engine linux/%s: preparing sources\n", t.Arch)
	src, tree := filepath.Join(root, "src"), filepath.Join(root, "tree")
	if err := prepareSources(ctx, dir, src); err != nil {
		return err
	}
	programs, err := compileAll(ctx, components(p), t, src, tree, progress)
	if err != nil {
		return err
	}
	if err := copyLicenses(ctx, dir, tree, t, programs); err != nil {
		return err
	}
	m, err := finish(p, t, tree, out, in)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "engine linux/%s: %s is %.1f MB, version %s\n", t.Arch, out.Archive, float64(m.Archive.Size)/1e6, m.Version)
	return nil
}

// compileAll builds the programs in src into tree/bin and returns the files of
// those written in Go.
func compileAll(ctx context.Context, cs []component, t target, src, tree string, progress io.Writer) (goPrograms []string, err error) {
	bin, err := filepath.Abs(filepath.Join(tree, "bin"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	for _, c := range cs {
		start, file := time.Now(), filepath.Join(bin, c.Name)
		fmt.Fprintf(progress, "engine linux/%s: building %s %s\n", t.Arch, c.Name, c.Version)
		if _, err := output(ctx, src, buildCommand(c, t, file)); err != nil {
			return nil, fmt.Errorf("build %q: %w", c.Name, err)
		}
		if c.Package != "" {
			goPrograms = append(goPrograms, file)
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("build %q: %w", c.Name, err)
		}
		fmt.Fprintf(progress, "engine linux/%s: built %s, %.1f MB, %.0f s\n", t.Arch, c.Name, float64(info.Size())/1e6, time.Since(start).Seconds())
	}
	return goPrograms, nil
}

// finish packs root and puts the results in place, the list of inputs last:
// without it nothing counts as done.
func finish(p pins, t target, root string, out outputs, in string) (Manifest, error) {
	files, err := scan(root)
	if err != nil {
		return Manifest{}, err
	}
	m := newManifest(p, t.Arch, files)
	if err := os.Remove(out.Inputs); err != nil && !os.IsNotExist(err) {
		return m, err
	}
	if err := replaceFile(out.Archive, func(w io.Writer) error { return pack(w, m, root) }); err != nil {
		return m, err
	}
	sum, size, err := hashFile(out.Archive)
	if err != nil {
		return m, err
	}
	m.Archive = &ManifestFile{Path: filepath.Base(out.Archive), Size: size, SHA256: sum}
	data, err := m.encode()
	if err != nil {
		return m, err
	}
	if err := replaceFile(out.Manifest, writer(data)); err != nil {
		return m, err
	}
	return m, replaceFile(out.Inputs, writer([]byte(in)))
}

// scan lists the files under root for the manifest. Their modes are ours to
// give: umasks differ.
func scan(root string) ([]ManifestFile, error) {
	var files []ManifestFile
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := ManifestFile{Path: filepath.ToSlash(rel), Mode: "0644"}
		if strings.HasPrefix(f.Path, "bin/") {
			f.Mode = "0755"
		}
		f.SHA256, f.Size, err = hashFile(path)
		files = append(files, f)
		return err
	})
	return files, err
}

func writer(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// replaceFile writes path through a temporary file, so that it is whole or as before.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %q: %w", path, err)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// output runs c in dir and returns its standard output. Its standard error
// becomes part of the error.
func output(ctx context.Context, dir string, c command) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = dir, append(baseEnv(os.Environ()), c.Env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", c, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// baseEnv keeps of an environment what finds programs, caches and modules, and
// drops all that could change what is built.
func baseEnv(environ []string) []string {
	keep := []string{"PATH", "HOME", "TMPDIR", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOTOOLCHAIN", "GOROOT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC"}
	kept := []string{"LC_ALL=C"}
	for _, kv := range environ {
		if name, _, _ := strings.Cut(kv, "="); slices.Contains(keep, name) {
			kept = append(kept, kv)
		}
	}
	return kept
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
