// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package projectcache keeps what Compose files came to, as small files that any process of the user may write, read and remove at any time. What is in
// them is the business of package compose, which encrypts and checks it.
package projectcache

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// DirName is the name of the folder in the user's folder.
const DirName = "cache/projects"

// Bounds of what is kept.
const (
	most     = 64      // projects, each in one environment of variables
	maxBytes = 4 << 20 // of one
	refresh  = 24 * time.Hour
)

// Cache is a folder, which need not exist. Nothing that goes wrong in it is an error: what cannot be read is decoded again.
type Cache struct {
	Dir string
	// Version is the program's own idea of its version.
	Version string
}

// Program implements compose.Cache. Builds of the same version are told apart by their files; without knowing its file a program keeps nothing.
func (c Cache) Program() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	built := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		built = builtFrom(info)
	}
	id, err := program(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(c.Version, " ", built, " ", path, " ", id)
}

// buildID is how much of a program's beginning has the identity that Go's linker gives each build, whatever the format of the file.
const buildID = 32 << 10

// program identifies the file of a program. Its size and time alone do not: tools that copy files and keep their times bring other builds with the same.
func program(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, buildID)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d %x", info.Size(), info.ModTime().UnixNano(), h.Sum(nil)), nil
}

// builtFrom says what sources a program was made of, as far as its build has noted that.
func builtFrom(info *debug.BuildInfo) string {
	from := []string{info.GoVersion, info.Main.Version, info.Main.Sum}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision", "vcs.modified", "-tags":
			from = append(from, s.Key+"="+s.Value)
		}
	}
	return strings.Join(from, " ")
}

// Get implements compose.Cache.
func (c Cache) Get(name string) []byte {
	path := filepath.Join(c.Dir, name)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	// What is used stays; once a day is often enough to know.
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > refresh {
		now := time.Now()
		_ = os.Chtimes(path, now, now)
	}
	return content
}

// Put implements compose.Cache. Projects that were not used for the longest time are removed.
func (c Cache) Put(name string, content []byte) {
	if len(content) > maxBytes || os.MkdirAll(c.Dir, 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(c.Dir, ".new-*") // readable by its owner only
	if err != nil {
		return
	}
	_, err = f.Write(content)
	// Not synced: what a crash leaves damaged cannot be opened, and is written again.
	if cmp.Or(err, f.Close()) != nil || os.Rename(f.Name(), filepath.Join(c.Dir, name)) != nil {
		_ = os.Remove(f.Name())
		return
	}
	c.prune()
}

// prune removes what is too much, the longest unused first; so in time also what a process left that was killed.
func (c Cache) prune() {
	files, err := os.ReadDir(c.Dir)
	if err != nil || len(files) <= most {
		return
	}
	used := map[string]time.Time{}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			used[f.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b fs.DirEntry) int { return used[a.Name()].Compare(used[b.Name()]) })
	for _, f := range files[:len(files)-most] {
		_ = os.Remove(filepath.Join(c.Dir, f.Name()))
	}
}
