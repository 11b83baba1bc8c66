// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// prepareSources makes src a module that builds the pinned programs from a
// vendor folder, with the patches of the module in dir applied to it. The go
// command does not let an overlay replace files of the module cache, and a
// replaced module would lose its version.
func prepareSources(ctx context.Context, dir, src string) error {
	for _, name := range []string{"go.mod", "go.sum", "pins.go", "init/init.c"} {
		if err := copyFile(filepath.Join(dir, name), filepath.Join(src, name)); err != nil {
			return fmt.Errorf("prepare sources: %w", err)
		}
	}
	if _, err := output(ctx, src, command{Args: []string{"go", "mod", "vendor"}, Env: listEnv()}); err != nil {
		return fmt.Errorf("vendor the modules: %w", err)
	}
	patches, err := filepath.Glob(filepath.Join(dir, "patches", "*.patch"))
	if err != nil {
		return err
	}
	for _, p := range patches { // in the order of their numbers
		if err := applyPatch(p, filepath.Join(src, "vendor")); err != nil {
			return fmt.Errorf("apply %q: %w", filepath.Base(p), err)
		}
	}
	return nil
}

// applyPatch applies one patch file to the tree under root. It must fit exactly:
// what it changes has to be looked at again when a pin moves.
func applyPatch(path, root string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files, _, err := gitdiff.Parse(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no changes in it")
	}
	for _, f := range files {
		if err := applyFile(f, root); err != nil {
			return err
		}
	}
	return nil
}

func applyFile(f *gitdiff.File, root string) error {
	if f.IsDelete || f.IsRename || f.IsCopy || f.IsBinary {
		return fmt.Errorf("change %q: only edits and new files are supported", f.OldName)
	}
	name := filepath.FromSlash(f.NewName)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("change %q: outside of the sources", f.NewName)
	}
	path := filepath.Join(root, name)
	var old []byte
	if !f.IsNew {
		var err error
		if old, err = os.ReadFile(path); err != nil {
			return err
		}
	} else if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("create %q: there already", f.NewName)
	}
	var changed bytes.Buffer
	if err := gitdiff.Apply(&changed, bytes.NewReader(old), f); err != nil {
		return fmt.Errorf("change %q: %w", f.NewName, err)
	}
	return writeFile(path, changed.Bytes())
}
