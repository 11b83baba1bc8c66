// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/seed71221737/dev/engine/native/supervise"
	"github.com/seed71221737/dev/internal/lazyregexp"
)

// logComponents are the writers of logs.
var logComponents = []string{"supervisor", "containerd", "dockerd"}

// Logs writes log lines to w: the last ones of each component in the order of
// their time, then new ones as they come, if asked.
func (s *Service) Logs(ctx context.Context, w io.Writer, o LogOptions) error {
	names := logComponents
	if o.Component != "" {
		if !slices.Contains(logComponents, o.Component) {
			return fmt.Errorf("show logs of %q: the components are %s", o.Component, strings.Join(logComponents, ", "))
		}
		names = []string{o.Component}
	}
	var watch *fsnotify.Watcher
	if o.Follow { // before reading, so that nothing falls between
		if err := os.MkdirAll(s.Paths.LogDir(), 0o755); err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
		var err error
		if watch, err = fsnotify.NewWatcher(); err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
		defer watch.Close() // a handle only
		if err := watch.Add(s.Paths.LogDir()); err != nil {
			return fmt.Errorf("follow logs: %w", err)
		}
	}
	var tails []*tail
	for _, name := range names {
		t := &tail{name: name, file: s.Paths.log(name)}
		if len(names) > 1 {
			t.prefix = fmt.Sprintf("%-10s | ", name)
		}
		tails = append(tails, t)
	}
	if err := showLast(w, tails, o.Tail); err != nil || !o.Follow {
		return err
	}
	return follow(ctx, w, watch, tails)
}

// tail is how far one log file has been shown.
type tail struct {
	name, file, prefix string
	offset             int64
	rest               []byte // of a line that is not complete
}

// logLine is one line with the time it was written.
type logLine struct {
	at   time.Time
	text string
}

// showLast shows the last n lines of every file, sorted by time.
func showLast(w io.Writer, tails []*tail, n int) error {
	var all []logLine
	for _, t := range tails {
		lines, err := t.last(n)
		if err != nil {
			return err
		}
		all = append(all, lines...)
	}
	slices.SortStableFunc(all, func(a, b logLine) int { return a.at.Compare(b.at) })
	for _, l := range all {
		if _, err := fmt.Fprintln(w, l.text); err != nil {
			return err
		}
	}
	return nil
}

// last reads the last n lines, of older files too; negative is all.
func (t *tail) last(n int) ([]logLine, error) {
	var lines []string
	files := supervise.Log{Path: t.file}.Files()
	for i := len(files) - 1; i >= 0 && (n < 0 || len(lines) < n); i-- {
		data, err := os.ReadFile(files[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if files[i] == t.file {
			whole := bytes.LastIndexByte(data, '\n') + 1
			t.offset, data = int64(whole), data[:whole]
		}
		if text := strings.TrimSuffix(string(data), "\n"); text != "" {
			lines = append(strings.Split(text, "\n"), lines...)
		}
	}
	if n >= 0 {
		lines = lines[max(0, len(lines)-n):]
	}
	return t.dated(lines), nil
}

// dated gives each line its time; one without has that of the line before.
func (t *tail) dated(lines []string) []logLine {
	var list []logLine
	var at time.Time
	for _, line := range lines {
		if stamp, ok := timeOf(line); ok {
			at = stamp
		}
		list = append(list, logLine{at, t.prefix + line})
	}
	return list
}

var timeField = lazyregexp.New(`^time="?([0-9T:.Z+-]+)"?`)

// timeOf finds the time field that all components begin their lines with.
func timeOf(line string) (time.Time, bool) {
	m := timeField.FindStringSubmatch(line)
	if m == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, m[1])
	return at, err == nil
}

// follow shows lines as they are written.
func follow(ctx context.Context, w io.Writer, watch *fsnotify.Watcher, tails []*tail) error {
	for {
		for _, t := range tails {
			if err := t.more(w); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-watch.Errors:
			return fmt.Errorf("follow logs: %w", err)
		case <-watch.Events:
		}
	}
}

// more shows the complete lines that were added since.
func (t *tail) more(w io.Writer) error {
	f, err := os.Open(t.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("follow logs: %w", err)
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("follow logs: %w", err)
	}
	if info.Size() < t.offset { // rotated
		t.offset, t.rest = 0, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, t.offset, info.Size()-t.offset))
	if err != nil {
		return fmt.Errorf("follow logs: %w", err)
	}
	t.offset += int64(len(data))
	t.rest = append(t.rest, data...)
	for {
		line, rest, ok := bytes.Cut(t.rest, []byte("\n"))
		if !ok {
			return nil
		}
		t.rest = rest
		if _, err := fmt.Fprintf(w, "%s%s\n", t.prefix, line); err != nil {
			return err
		}
	}
}
