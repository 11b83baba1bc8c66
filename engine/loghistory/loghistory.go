// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package loghistory keeps the output of containers that are gone: the engine forgets it with them.
//
// A generation is one container that was replaced by another. Its lines are one compressed file, <project>/<container>/<created>-<id>.log.zst below
// [Store.Dir], written as a whole; of each container name the latest few are kept, and of each generation the end.
package loghistory

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// DirName is the name of the folder in the user's folder.
const DirName = "logs"

// Bounds of what is kept.
const (
	// Lines is the most of a generation, from its end.
	Lines     = 50000
	maxBytes  = 16 << 20 // of a generation's lines
	kept      = 5        // generations of a container name
	extension = ".log.zst"
)

// Generation is a container that is gone.
type Generation struct {
	Project, Service, Container string
	ID                          string // the first characters of it
	Created                     time.Time
	// Number counts the generations of a container name that are kept, the oldest 1.
	Number int

	path string
}

// Line is one line of output.
type Line struct {
	Time   time.Time
	Stderr bool
	Text   string
}

// Store is the folder of what is kept. Processes may use it at the same time.
type Store struct{ Dir string }

// Save keeps a generation: lines calls emit for each of its lines in order. Without a line nothing is kept. Older generations beyond those that are kept are removed.
func (s Store) Save(g Generation, lines func(emit func(Line)) error) (err error) {
	dir := filepath.Join(s.Dir, g.Project, g.Container)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the log of %s: %w", g.Container, err)
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return fmt.Errorf("keep the log of %s: %w", g.Container, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has another name if all went well
	written, err := write(f, g, lines)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep the log of %s: %w", g.Container, err)
	}
	if written == 0 {
		return nil
	}
	name := fmt.Sprintf("%d-%s%s", g.Created.UnixNano(), g.ID[:min(12, len(g.ID))], extension)
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("keep the log of %s: %w", g.Container, err)
	}
	return s.forgetOldest(g)
}

// write compresses a header with the service and the lines.
func write(w io.Writer, g Generation, lines func(emit func(Line)) error) (written int, err error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriter(z)
	fmt.Fprintf(out, "1 %s\n", g.Service)
	size := 0
	err = lines(func(l Line) {
		if size += len(l.Text); size > maxBytes {
			return
		}
		stream := "o"
		if l.Stderr {
			stream = "e"
		}
		written++
		fmt.Fprintf(out, "%d %s %s\n", l.Time.UnixNano(), stream, strings.ReplaceAll(l.Text, "\n", " "))
	})
	return written, errors.Join(err, out.Flush(), z.Close())
}

func (s Store) forgetOldest(g Generation) error {
	all, err := s.generations(g.Project, g.Container)
	if err != nil {
		return err
	}
	for _, old := range all[:max(0, len(all)-kept)] {
		if err := os.Remove(old.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the log of %s: %w", old.Container, err)
		}
	}
	return nil
}

// List finds the generations that are kept of a project, by container and age. Files that are none are left out.
func (s Store) List(project string) ([]Generation, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, project))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list earlier logs: %w", err)
	}
	var all []Generation
	for _, e := range entries {
		of, err := s.generations(project, e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	return all, nil
}

func (s Store) generations(project, container string) ([]Generation, error) {
	dir := filepath.Join(s.Dir, project, container)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list earlier logs: %w", err)
	}
	var all []Generation
	for _, e := range entries {
		created, id, ok := strings.Cut(strings.TrimSuffix(e.Name(), extension), "-")
		nano, err := strconv.ParseInt(created, 10, 64)
		if !ok || err != nil || !strings.HasSuffix(e.Name(), extension) {
			continue
		}
		g := Generation{Project: project, Container: container, ID: id, Created: time.Unix(0, nano), path: filepath.Join(dir, e.Name())}
		if g.Service, err = g.readService(); err == nil {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b Generation) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	for i := range all {
		all[i].Number = i + 1
	}
	return all, nil
}

// readService reads the header.
func (g Generation) readService() (service string, err error) {
	err = g.scan(func(in *bufio.Reader) error {
		service, err = header(in)
		return err
	})
	return service, err
}

func header(in *bufio.Reader) (service string, err error) {
	first, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	service, ok := strings.CutPrefix(strings.TrimSuffix(first, "\n"), "1 ")
	if !ok {
		return "", errors.New("of another version")
	}
	return service, nil
}

// scan opens the file.
func (g Generation) scan(read func(*bufio.Reader) error) error {
	f, err := os.Open(g.path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	return read(bufio.NewReader(z))
}

// Read gives the lines of a generation to emit. A file that was damaged gives an error after the lines that can be read.
func (g Generation) Read(emit func(Line)) error {
	err := g.scan(func(in *bufio.Reader) error {
		if _, err := header(in); err != nil {
			return err
		}
		for {
			text, err := in.ReadString('\n')
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			parts := strings.SplitN(strings.TrimSuffix(text, "\n"), " ", 3)
			if len(parts) != 3 {
				return errors.New("it is damaged")
			}
			nano, err := strconv.ParseInt(parts[0], 10, 64)
			if err != nil {
				return errors.New("it is damaged")
			}
			emit(Line{Time: time.Unix(0, nano), Stderr: parts[1] == "e", Text: parts[2]})
		}
	})
	if err != nil {
		return fmt.Errorf("read the earlier log of %s: %w", g.Container, err)
	}
	return nil
}
