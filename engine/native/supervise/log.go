// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Log is a log file that is kept below a size.
type Log struct {
	Path string
	// MaxSize is the size in bytes from which the file is rotated; zero is 10 MiB.
	MaxSize int64
	// Keep is the number of older files kept as Path.1, Path.2, …; zero is 2.
	Keep int
}

const (
	defaultMaxSize = 10 << 20
	defaultKeep    = 2
)

// Open opens the file for appending and makes its folder.
func (l Log) Open() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(l.Path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(l.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// Rotate shortens the file when it is too long: its content is copied to
// Path.1 and the file emptied, because the program that writes it holds it
// open. Lines written between copy and emptying are lost.
func (l Log) Rotate() error {
	info, err := os.Stat(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	limit := l.MaxSize
	if limit == 0 {
		limit = defaultMaxSize
	}
	if err != nil || info.Size() < limit {
		return err
	}
	if err := l.shift(); err != nil {
		return fmt.Errorf("rotate log %q: %w", l.Path, err)
	}
	return nil
}

func (l Log) shift() error {
	keep := l.Keep
	if keep == 0 {
		keep = defaultKeep
	}
	for i := keep; i > 1; i-- {
		err := os.Rename(l.older(i-1), l.older(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := copyFile(l.older(1), l.Path); err != nil {
		return err
	}
	return os.Truncate(l.Path, 0)
}

func (l Log) older(i int) string { return fmt.Sprintf("%s.%d", l.Path, i) }

// Files are the names of all files of the log, oldest first, that exist.
func (l Log) Files() []string {
	keep := l.Keep
	if keep == 0 {
		keep = defaultKeep
	}
	var names []string
	for i := keep; i > 0; i-- {
		names = append(names, l.older(i))
	}
	names = append(names, l.Path)
	var found []string
	for _, name := range names {
		if _, err := os.Stat(name); err == nil {
			found = append(found, name)
		}
	}
	return found
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// size is the file's length in bytes; 0 when there is none.
func (l Log) size() int64 {
	info, err := os.Stat(l.Path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// tailBytes bounds how much of a log is read to find its last lines.
const tailBytes = 16 << 10

// Tail returns the last n lines written after offset since (in bytes).
func (l Log) Tail(n int, since int64) []string {
	f, err := os.Open(l.Path)
	if err != nil {
		return nil
	}
	defer f.Close() // only read
	size := l.size()
	if size < since {
		since = 0 // rotated meanwhile
	}
	from := max(since, size-tailBytes)
	data, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return nil
	}
	return lastLines(string(data), n)
}

func lastLines(text string, n int) []string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}
