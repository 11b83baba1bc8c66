// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"github.com/seed71221737/dev/hostagent"
)

func newMachineLogsCommand(m *machines) *cobra.Command {
	var console, follow bool
	tail := 100
	c := &cobra.Command{
		Use:   "logs [OPTIONS] [MACHINE]",
		Short: "Show what a machine's host agent or console said",
		Long: `Show what a machine's host agent said, the program that keeps the machine running;
with --console what the machine's kernel said.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: m.complete,
		RunE: func(c *cobra.Command, args []string) error {
			one, err := m.one(args)
			if err != nil {
				return err
			}
			name, render := one.Dir.AgentLog(), logLine
			if console {
				name, render = one.Dir.Console(), consoleLine
			}
			if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) && !follow {
				return withHint(fmt.Errorf("machine %q has not been started yet: it has no log", one.Name), "%s", m.typed("start", one.Name))
			}
			return showLog(c.Context(), m.out, name, tail, follow, render)
		},
	}
	f := c.Flags()
	f.BoolVar(&console, "console", false, "show the console")
	f.BoolVarP(&follow, "follow", "f", false, "go on with new lines")
	f.IntVarP(&tail, "tail", "n", tail, "number of lines from the end, -1 for all")
	return c
}

// showLog writes the last lines of a file, and with follow those that come until ctx ends.
func showLog(ctx context.Context, w io.Writer, name string, tail int, follow bool, render func(string) string) error {
	var watcher *fsnotify.Watcher
	if follow { // before reading: what is written meanwhile is seen
		var err error
		if watcher, err = fsnotify.NewWatcher(); err != nil {
			return fmt.Errorf("follow %q: %w", name, err)
		}
		defer watcher.Close()
		if err := watcher.Add(filepath.Dir(name)); err != nil {
			return fmt.Errorf("follow %q: %w", name, err)
		}
	}
	data, err := os.ReadFile(name)
	if err != nil && !(follow && errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("read log: %w", err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	if !follow {
		whole = len(data)
	}
	for _, line := range lastLines(string(data[:whole]), tail) {
		if _, err := fmt.Fprintln(w, render(line)); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return followLog(ctx, w, watcher, name, int64(whole), render)
}

// followLog writes the lines that are appended to a file, from an offset.
func followLog(ctx context.Context, w io.Writer, watcher *fsnotify.Watcher, name string, offset int64, render func(string) string) error {
	for {
		next, err := copyLines(w, name, offset, render)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		offset = next
		for changed := false; !changed; {
			select {
			case <-ctx.Done():
				return nil // the user has seen enough
			case e := <-watcher.Events:
				changed = filepath.Clean(e.Name) == filepath.Clean(name)
			case err := <-watcher.Errors:
				return fmt.Errorf("follow %q: %w", name, err)
			}
		}
	}
}

// copyLines writes the whole lines of a file from an offset on, and returns the offset after them. A file that became shorter was begun anew.
func copyLines(w io.Writer, name string, offset int64, render func(string) string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() // it was only read
	if info, err := f.Stat(); err == nil && info.Size() < offset {
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return offset, nil // the rest of the line comes later
		}
		offset += int64(len(line))
		if _, err := fmt.Fprintln(w, render(strings.TrimSuffix(line, "\n"))); err != nil {
			return offset, err
		}
	}
}

// lastLines splits a text into lines and keeps the last n of them, or all if n is negative.
func lastLines(text string, n int) []string {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines
}

func consoleLine(line string) string { return hostagent.Printable(line) }

// logLine makes a JSON line of a log readable; what is none stays as it is.
func logLine(line string) string {
	var record map[string]any
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		return hostagent.Printable(line)
	}
	var parts []string
	if stamp, ok := record["time"].(string); ok {
		if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
			stamp = t.Local().Format("2006-01-02 15:04:05.000")
		}
		parts = append(parts, stamp)
	}
	for _, key := range []string{"level", "msg"} {
		if text, ok := record[key].(string); ok {
			parts = append(parts, text)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(record)) {
		if key == "time" || key == "level" || key == "msg" {
			continue
		}
		value, ok := record[key].(string)
		if data, err := json.Marshal(record[key]); err == nil && (!ok || strings.ContainsAny(value, " \"\n")) {
			value = string(data)
		}
		parts = append(parts, key+"="+value)
	}
	return hostagent.Printable(strings.Join(parts, " "))
}
