// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package program finds the programs that dev carries beside itself, so that what only they need costs no other command anything: builds need
// BuildKit's client, and host agents a TCP/IP stack. A process that links those pays for them at each start.
//
// Release builds have them inside, and unpack one when it is first needed; a plain `go build` looks beside itself.
package program

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// What release builds carry: for each program the SHA-256 of its file, then the file, compressed with zstd. The files here are empty; release
// builds put the ones for their system in their place (hack/carry).
var (
	//go:embed dev-build.bin
	devBuild []byte
	//go:embed dev-hostagent.bin
	devHostAgent []byte
)

const (
	// maxSize bounds what is unpacked, in bytes.
	maxSize = 512 << 20
	// unused is how long an unpacked program of another version is kept.
	unused = 30 * 24 * time.Hour
)

// Program is one of dev's own programs.
type Program struct {
	// Name is its file's, without the .exe of Windows, and that of the package in cmd/ that it is built from.
	Name string
	// Variable is the environment variable that names a file to use instead of any other.
	Variable string
	packed   []byte
}

// Build is BuildKit's client.
func Build() Program { return Program{"dev-build", "DEV_BUILD_PROGRAM", devBuild} }

// HostAgent is dev with the body of a machine's host agent.
func HostAgent() Program { return Program{"dev-hostagent", "DEV_HOSTAGENT_PROGRAM", devHostAgent} }

// Options say where programs are.
type Options struct {
	// Environ is the process's environment, as os.Environ returns it.
	Environ []string
	// Executable is the file of this program, beside which others may lie.
	Executable string
	// Dir is the user's folder, in which programs are unpacked.
	Dir string
}

// MissingError says that this build of dev carries no such program and none lies beside it.
type MissingError struct {
	Program Program
	Tried   []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("find the program %s: this build of dev carries none, and there is none at %q", e.Program.Name, e.Tried)
}

// Hint names the next step.
func (e *MissingError) Hint() string {
	return fmt.Sprintf("build it beside dev with `go build -o DIR ./cmd/%s` (DIR is dev's folder), set %s to one, or install a release of dev",
		e.Program.Name, e.Program.Variable)
}

// Find returns the program's file: the one that its variable names, the one built into this program, or one beside it.
func (p Program) Find(o Options) (string, error) {
	for _, kv := range o.Environ {
		if name, ok := strings.CutPrefix(kv, p.Variable+"="); ok && name != "" {
			if !isFile(name) {
				return "", fmt.Errorf("find the program that %s names: %q is not a file", p.Variable, name)
			}
			return name, nil
		}
	}
	if len(p.packed) > 0 {
		name, err := p.unpack(o.Dir)
		if err != nil {
			return "", fmt.Errorf("unpack the program %s: %w", p.Name, err)
		}
		return name, nil
	}
	exe := o.Executable
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	dir := filepath.Dir(exe)
	var tried []string
	for _, in := range []string{".", "bin", "../bin", "../libexec/dev"} {
		tried = append(tried, filepath.Join(dir, filepath.FromSlash(in), p.file()))
	}
	for _, name := range tried {
		if isFile(name) {
			return name, nil
		}
	}
	return "", &MissingError{Program: p, Tried: tried}
}

// file is the program's file name.
func (p Program) file() string {
	if runtime.GOOS == "windows" {
		return p.Name + ".exe"
	}
	return p.Name
}

// unpack returns the file of the packed program, in a folder of dir that its digest names. A file that is there is used if its content is the
// right one, else made anew.
func (p Program) unpack(dir string) (string, error) {
	if len(p.packed) < sha256.Size {
		return "", fmt.Errorf("%d bytes are too few", len(p.packed))
	}
	if dir == "" {
		return "", errors.New("there is no folder for it: set HOME or DEV_HOME")
	}
	digest, content := p.packed[:sha256.Size], p.packed[sha256.Size:]
	all := filepath.Join(dir, p.Name)
	name := filepath.Join(all, hex.EncodeToString(digest[:8]), p.file())
	if have, err := os.ReadFile(name); err == nil && matchesDigest(have, digest) {
		return name, nil
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return "", err
	}
	defer r.Close()
	program, err := r.DecodeAll(content, nil)
	if err != nil {
		return "", err
	}
	if !matchesDigest(program, digest) {
		return "", errors.New("what dev carries is damaged (its digest differs): install dev again")
	}
	if err := atomicfile.Write(name, program, 0o755); err != nil {
		return "", err
	}
	sweep(all, filepath.Dir(name))
	return name, nil
}

func matchesDigest(b, digest []byte) bool {
	sum := sha256.Sum256(b)
	return bytes.Equal(sum[:], digest)
}

// sweep removes the programs of other versions that have lain unpacked for long. It does what it can: they only take room.
func sweep(all, keep string) {
	entries, _ := os.ReadDir(all)
	for _, e := range entries {
		info, err := e.Info()
		if path := filepath.Join(all, e.Name()); err == nil && path != keep && time.Since(info.ModTime()) > unused {
			_ = os.RemoveAll(path)
		}
	}
}

// isFile reports whether path is there and no folder.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
