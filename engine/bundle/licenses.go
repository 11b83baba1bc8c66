// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// linkedModules returns the paths of all modules linked into the Go programs.
func linkedModules(programs []string) ([]string, error) {
	var paths []string
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("read modules of %q: %w", program, err)
		}
		for _, m := range info.Deps {
			paths = append(paths, m.Path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// copyLicenses puts the licence texts of everything linked into the programs
// under root/licenses/<module>/.
func copyLicenses(ctx context.Context, dir, root string, t target, goPrograms []string) error {
	paths, err := linkedModules(goPrograms)
	if err != nil {
		return err
	}
	modules, err := listModules(ctx, dir, paths...)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := copyModuleLicense(m.Path, m.Dir, root); err != nil {
			return err
		}
	}
	goroot, err := output(ctx, dir, command{Args: []string{"go", "env", "GOROOT"}})
	if err != nil {
		return err
	}
	if err := copyModuleLicense("std", strings.TrimSpace(goroot), root); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(dir, "..", "..", "LICENSE"), filepath.Join(root, "licenses", ownModule, "LICENSE")); err != nil {
		return err
	}
	return copyLibraryLicenses(root, t)
}

// copyModuleLicense copies the licence and notice files at the top of a module.
func copyModuleLicense(name, dir, root string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("find the licence of %q: %w", name, err)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !isLicense(e.Name()) {
			continue
		}
		found = true
		to := filepath.Join(root, "licenses", filepath.FromSlash(name), e.Name())
		if err := copyFile(filepath.Join(dir, e.Name()), to); err != nil {
			return err
		}
	}
	if found {
		return nil
	}
	note, known := unlicensed()[name]
	if !known {
		return fmt.Errorf("find the licence of %q: no licence file in %q", name, dir)
	}
	return writeFile(filepath.Join(root, "licenses", filepath.FromSlash(name), "NOTICE"), []byte(note))
}

// unlicensed lists the modules known to come without a licence file, with the
// note that takes its place. Any other such module stops the build: it has to be
// looked at.
func unlicensed() map[string]string {
	return map[string]string{
		"github.com/moby/extensions": "This module is published without a licence file. It belongs to the Moby project,\n" +
			"whose engine requires it and is under the Apache License 2.0.\n",
	}
}

// isLicense tells a licence or notice by its file name.
func isLicense(name string) bool {
	name = strings.ToUpper(name)
	if strings.HasSuffix(name, ".GO") {
		return false
	}
	for _, prefix := range []string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "PATENTS"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// copyLibraryLicenses copies those of the C libraries linked into runc and
// docker-init, as the distribution states them.
func copyLibraryLicenses(root string, t target) error {
	for name, packages := range map[string][]string{
		"libc":       {"libc6-dev", "libc6-dev-" + t.Arch + "-cross"},
		"libseccomp": {"libseccomp-dev"},
	} {
		if err := copyFirst(packages, filepath.Join(root, "licenses", name, "copyright")); err != nil {
			return err
		}
	}
	return nil
}

func copyFirst(packages []string, to string) error {
	for _, p := range packages {
		from := filepath.Join("/usr/share/doc", p, "copyright")
		if _, err := os.Stat(from); err == nil {
			return copyFile(from, to)
		}
	}
	return fmt.Errorf("find the licence of %q: no /usr/share/doc/%s/copyright", filepath.Base(filepath.Dir(to)), packages[0])
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, data)
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
