// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

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

// embedded is the build program that release builds carry: the SHA-256 of the program, then the program, compressed with zstd. The file here is
// empty; release builds put the one for their system in its place (hack/builder).
//
//go:embed program.bin
var embedded []byte

const (
	programName = "dev-build"
	// programVar names a build program to use instead of any other.
	programVar = "DEV_BUILD_PROGRAM"
	// maxProgram bounds what is unpacked, in bytes.
	maxProgram = 512 << 20
	// unused is how long an unpacked program of another version is kept.
	unused = 30 * 24 * time.Hour
)

// NoProgramError says that this build of dev carries no build program and none lies beside it.
type NoProgramError struct{ Tried []string }

func (e *NoProgramError) Error() string {
	return fmt.Sprintf("find the build program %s: this build of dev carries none, and there is none at %q", programName, e.Tried)
}

// Hint names the next step.
func (e *NoProgramError) Hint() string {
	return "build it beside dev with `go build -o DIR ./cmd/dev-build` (DIR is dev's folder), set " + programVar + " to one, or install a release of dev"
}

// findProgram finds the build program: the one that DEV_BUILD_PROGRAM names, the one built into this program, or one beside it.
func findProgram(o Options) (string, error) {
	for _, kv := range o.Environ {
		if name, ok := strings.CutPrefix(kv, programVar+"="); ok && name != "" {
			if !isFile(name) {
				return "", fmt.Errorf("find the build program that %s names: %q is not a file", programVar, name)
			}
			return name, nil
		}
	}
	if len(embedded) > 0 {
		return unpackProgram(embedded, o.Dir)
	}
	exe := o.Executable
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	dir := filepath.Dir(exe)
	tried := []string{
		filepath.Join(dir, programName+exeSuffix()), filepath.Join(dir, "bin", programName+exeSuffix()),
		filepath.Join(dir, "..", "bin", programName+exeSuffix()), filepath.Join(dir, "..", "libexec", "dev", programName+exeSuffix()),
	}
	for _, name := range tried {
		if isFile(name) {
			return name, nil
		}
	}
	return "", &NoProgramError{Tried: tried}
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// unpackProgram returns the file of the packed program, in a folder of dir that its digest names. A file that is there is used if its content
// is the right one, else made anew.
func unpackProgram(packed []byte, dir string) (string, error) {
	if len(packed) < sha256.Size {
		return "", fmt.Errorf("unpack the build program: %d bytes are too few", len(packed))
	}
	digest, content := packed[:sha256.Size], packed[sha256.Size:]
	if dir == "" {
		return "", errors.New("unpack the build program: there is no folder for it: set HOME or DEV_HOME")
	}
	all := filepath.Join(dir, "build-program")
	name := filepath.Join(all, hex.EncodeToString(digest[:8]), programName+exeSuffix())
	if have, err := os.ReadFile(name); err == nil && matchesDigest(have, digest) {
		return name, nil
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxProgram))
	if err != nil {
		return "", fmt.Errorf("unpack the build program: %w", err)
	}
	defer r.Close()
	program, err := r.DecodeAll(content, nil)
	if err != nil {
		return "", fmt.Errorf("unpack the build program: %w", err)
	}
	if !matchesDigest(program, digest) {
		return "", fmt.Errorf("unpack the build program: what dev carries is damaged (its digest differs): install dev again")
	}
	if err := atomicfile.Write(name, program, 0o755); err != nil {
		return "", fmt.Errorf("unpack the build program: %w", err)
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
