// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package environments

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Worktree is a git repository's working folder.
type Worktree struct {
	Root string
	// Name is what git calls a linked worktree; empty for the first one.
	Name string
	// Main is the folder of the repository's first worktree; of a bare repository the repository itself, without .git.
	Main string
}

// Linked reports whether it was made with git worktree add.
func (w Worktree) Linked() bool { return w.Name != "" }

// FindWorktree finds the worktree that a folder is in; ok is false if it is in none. It reads git's files and runs nothing. A submodule is a
// repository of its own.
func FindWorktree(dir string) (w Worktree, ok bool, err error) {
	for {
		info, err := os.Lstat(filepath.Join(dir, ".git"))
		switch {
		case err == nil && info.IsDir():
			return Worktree{Root: dir, Main: dir}, true, nil
		case err == nil:
			w, err := readGitFile(dir)
			return w, err == nil, err
		case !errors.Is(err, fs.ErrNotExist):
			return Worktree{}, false, nil // a folder that cannot be read is no reason to stop
		}
		up := filepath.Dir(dir)
		if up == dir {
			return Worktree{}, false, nil
		}
		dir = up
	}
}

// readGitFile follows the file that stands for the repository in linked worktrees and submodules.
func readGitFile(root string) (Worktree, error) {
	name := filepath.Join(root, ".git")
	text, err := os.ReadFile(name)
	if err != nil {
		return Worktree{}, fmt.Errorf("find the git worktree: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	gitDir, ok := strings.CutPrefix(line, "gitdir: ")
	if !ok {
		return Worktree{Root: root, Main: root}, nil
	}
	gitDir = absolute(root, strings.TrimRight(gitDir, "\r"))
	shared, err := os.ReadFile(filepath.Join(gitDir, "commondir"))
	if errors.Is(err, fs.ErrNotExist) {
		return Worktree{Root: root, Main: root}, nil // a submodule, or a repository whose files are elsewhere
	}
	if err != nil {
		return Worktree{}, fmt.Errorf("find the git worktree: %w", err)
	}
	common := absolute(gitDir, strings.TrimSpace(string(shared)))
	w := Worktree{Root: root, Name: filepath.Base(gitDir), Main: strings.TrimSuffix(common, ".git")}
	if filepath.Base(common) == ".git" {
		w.Main = filepath.Dir(common)
	}
	return w, nil
}

func absolute(dir, path string) string {
	path = filepath.FromSlash(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}
