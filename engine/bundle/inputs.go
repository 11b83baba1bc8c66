// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// inputs lists, a line each, all that decides what a bundle becomes: the files
// of this module but its tests, the Go version and the C toolchain. Two equal
// lists build two equal archives.
func inputs(ctx context.Context, dir string, t target) (string, error) {
	tools, err := probeToolchain(ctx, t)
	if err != nil {
		return "", err
	}
	version, err := output(ctx, dir, command{Args: []string{"go", "env", "GOVERSION"}})
	if err != nil {
		return "", err
	}
	lines := append([]string{"arch " + t.Arch, "go " + strings.TrimSpace(version)}, tools...)
	files, err := sourceFiles(os.DirFS(dir))
	if err != nil {
		return "", fmt.Errorf("list the builder's files: %w", err)
	}
	for _, name := range files {
		sum, _, err := hashFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		lines = append(lines, name+" "+sum)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// sourceFiles returns the files that take part in a build, sorted.
func sourceFiles(root fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case !d.IsDir() && !strings.HasSuffix(path, "_test.go"):
			files = append(files, path)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

// upToDate tells whether the archive in out was made from the given inputs and
// is still whole.
func upToDate(out outputs, want string) bool {
	have, err := os.ReadFile(out.Inputs)
	if err != nil || string(have) != want {
		return false
	}
	data, err := os.ReadFile(out.Manifest)
	if err != nil {
		return false
	}
	var m Manifest
	if json.Unmarshal(data, &m) != nil || m.Archive == nil {
		return false
	}
	sum, size, err := hashFile(out.Archive)
	return err == nil && sum == m.Archive.SHA256 && size == m.Archive.Size
}
