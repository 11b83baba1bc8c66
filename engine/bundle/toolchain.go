// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// target is one architecture and the C toolchain that serves it.
type target struct {
	Arch         string // as Go names it
	CC           string // C compiler
	PkgConfigDir string // where pkg-config looks when cross-compiling; empty for the host's own
}

// triple is the GNU name of an architecture, as in Debian's cross compilers.
func triple(arch string) (string, error) {
	switch arch {
	case "amd64":
		return "x86_64-linux-gnu", nil
	case "arm64":
		return "aarch64-linux-gnu", nil
	}
	return "", hinted(fmt.Errorf("unknown architecture %q", arch), "go run . -arch amd64, arm64 or all")
}

// newTarget describes the toolchain for arch as seen from a host of hostArch.
func newTarget(arch, hostArch string) (target, error) {
	name, err := triple(arch)
	if err != nil {
		return target{}, err
	}
	if arch == hostArch {
		return target{Arch: arch, CC: "gcc"}, nil
	}
	return target{Arch: arch, CC: name + "-gcc", PkgConfigDir: "/usr/lib/" + name + "/pkgconfig"}, nil
}

// installHint says what to install for t on Debian and its relatives.
func installHint(t target) string {
	if t.PkgConfigDir == "" {
		return "apt-get install gcc libc6-dev libseccomp-dev pkg-config"
	}
	cross := strings.TrimSuffix(t.CC, "-gcc")
	return fmt.Sprintf("dpkg --add-architecture %[1]s && apt-get update && apt-get install gcc-%[2]s libc6-dev-%[1]s-cross libseccomp-dev:%[1]s pkg-config", t.Arch, cross)
}

// probeToolchain checks that all t needs is there and returns a line for each
// input that decides what the C parts become: compiler and static libraries.
func probeToolchain(ctx context.Context, t target) ([]string, error) {
	if runtime.GOOS != "linux" {
		return nil, hinted(errors.New("the engine is built on linux only"), "run this in a Linux machine or container")
	}
	for _, tool := range []string{t.CC, "pkg-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, hinted(fmt.Errorf("find %q: not installed", tool), installHint(t))
		}
	}
	env := []string{}
	if t.PkgConfigDir != "" {
		env = append(env, "PKG_CONFIG_LIBDIR="+t.PkgConfigDir)
	}
	version, err := output(ctx, "", command{Args: []string{"pkg-config", "--modversion", "libseccomp"}, Env: env})
	if err != nil {
		return nil, hinted(fmt.Errorf("find libseccomp for %s: %w", t.Arch, err), installHint(t))
	}
	compiler, err := output(ctx, "", command{Args: []string{t.CC, "--version"}})
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(compiler, "\n")
	found := []string{"cc " + first, "libseccomp " + strings.TrimSpace(version)}
	for _, lib := range []string{"libc.a", "libseccomp.a"} {
		sum, err := staticLibrary(ctx, t, lib)
		if err != nil {
			return nil, err
		}
		found = append(found, lib+" "+sum)
	}
	return found, nil
}

// staticLibrary returns the digest of the library that t's linker would use:
// distributions change it without changing its version.
func staticLibrary(ctx context.Context, t target, lib string) (string, error) {
	path, err := output(ctx, "", command{Args: []string{t.CC, "-print-file-name=" + lib}})
	if err != nil {
		return "", err
	}
	path = strings.TrimSpace(path)
	if !filepath.IsAbs(path) { // gcc echoes the name it could not find
		return "", hinted(fmt.Errorf("find static library %q for %s: not installed", lib, t.Arch), installHint(t))
	}
	sum, _, err := hashFile(path)
	return sum, err
}
