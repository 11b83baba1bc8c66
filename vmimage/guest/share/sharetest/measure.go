// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Sizes of what is measured.
const (
	treeFolders  = 281
	treeFiles    = 10 // in each folder
	smallSize    = 3000
	smallReads   = 1000
	created      = 5000
	createdSize  = 4 << 10
	createdIn    = 50 // files in one folder
	largeSize    = 64 << 20
	measureChunk = 128 << 10
)

// Prepare makes what Measure reads, on the side that has the files: runs trees that are each read once, so that nothing of them is in a cache.
func Prepare(dir string, runs int) error {
	data := bytes.Repeat([]byte("a line of a source file\n"), smallSize/24)
	for run := range runs {
		for _, kind := range []string{"stat", "read"} {
			root := filepath.Join(dir, fmt.Sprintf("%s%d", kind, run))
			for d := range treeFolders {
				folder := filepath.Join(root, fmt.Sprintf("m%d", d%20), fmt.Sprintf("p%d", d))
				if err := os.MkdirAll(folder, 0o755); err != nil {
					return err
				}
				for f := range treeFiles {
					if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%d.js", f)), data, 0o644); err != nil {
						return err
					}
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("large%d", run)), bytes.Repeat([]byte{1, 2, 3, 4}, largeSize/4), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Figure is one thing that was measured.
type Figure struct {
	Name string
	Took time.Duration
	// Bytes were moved, where that is what counts.
	Bytes int64
}

// Measure takes all figures of a folder that Prepare has filled, with its trees of one run. A scale of 10 reads and creates a tenth of the files.
func Measure(dir string, run, scale int) ([]Figure, error) {
	name := func(kind string) string { return filepath.Join(dir, fmt.Sprintf("%s%d", kind, run)) }
	var all []Figure
	for _, step := range []struct {
		name  string
		bytes int64
		do    func() error
	}{
		{"find and stat of 3,112 entries, cold", 0, func() error { return statTree(name("stat")) }},
		{"the same, warm", 0, func() error { return statTree(name("stat")) }},
		{fmt.Sprintf("read %d small files, cold", smallReads/scale), 0, func() error { return readTree(name("read"), smallReads/scale) }},
		{"the same, warm", 0, func() error { return readTree(name("read"), smallReads/scale) }},
		{fmt.Sprintf("create %d files of 4 KiB", created/scale), 0, func() error { return createTree(name("new"), created/scale) }},
		{"remove them", 0, func() error { return os.RemoveAll(name("new")) }},
		{"read a file of 64 MiB, cold", largeSize, func() error { return readLarge(name("large")) }},
		{"write a file of 64 MiB, with fsync", largeSize, func() error { return writeLarge(name("written")) }},
	} {
		began := time.Now()
		if err := step.do(); err != nil {
			return all, fmt.Errorf("%s: %w", step.name, err)
		}
		all = append(all, Figure{step.name, time.Since(began), step.bytes})
	}
	return all, os.Remove(name("written"))
}

func statTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = os.Lstat(path)
		return err
	})
}

// readTree reads files as a program that follows a tree does: folder by folder, by name.
func readTree(root string, count int) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		if count--; count < 0 {
			return filepath.SkipAll
		}
		_, err = os.ReadFile(path)
		return err
	})
}

// createTree writes files as an installer of packages does.
func createTree(root string, count int) error {
	data := bytes.Repeat([]byte("x"), createdSize)
	for i := range count {
		folder := filepath.Join(root, fmt.Sprintf("p%d", i/createdIn))
		if i%createdIn == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("f%d.js", i)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func readLarge(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, measureChunk))
	return err
}

func writeLarge(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	chunk := bytes.Repeat([]byte{5, 6, 7, 8}, measureChunk/4)
	for range largeSize / measureChunk {
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	return f.Sync()
}
