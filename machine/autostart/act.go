// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package autostart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// System is where entries are kept, and how the system is told. The zero Run runs programs.
type System struct {
	OS               string // as runtime.GOOS
	Home, ConfigHome string
	// Run runs a program of the system's and returns what it said.
	Run func(ctx context.Context, name string, args ...string) (string, error)
}

// Outcome is what Enable or Disable did.
type Outcome struct {
	// Where is the file, or the task's name.
	Where string
	// Note is what the user should know, such as that the system could not be told now; empty if there is nothing.
	Note string
}

// toldWithin bounds each call of a system's program.
const toldWithin = 30 * time.Second

func (s System) run(ctx context.Context, name string, args ...string) (string, error) {
	if s.Run != nil {
		return s.Run(ctx, name, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil && text != "" {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	} else if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return text, err
}

// Enable writes the entry and tells the system. An entry that is there is written anew.
func (s System) Enable(ctx context.Context, e Entry) (Outcome, error) {
	name := label(s.OS, e.Machine)
	if s.OS == "windows" {
		return Outcome{Where: name}, s.createTask(ctx, name, Text(s.OS, e))
	}
	path := Path(s.OS, s.Home, s.ConfigHome, e.Machine)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Outcome{}, fmt.Errorf("make folder for autostart: %w", err)
	}
	if err := atomicfile.Write(path, []byte(Text(s.OS, e)), 0o644); err != nil {
		return Outcome{}, fmt.Errorf("write autostart of machine %q: %w", e.Machine, err)
	}
	if s.OS == "darwin" {
		return Outcome{Where: path}, nil // launchd reads the folder at the next login
	}
	o := Outcome{Where: path}
	_, err := s.run(ctx, "systemctl", "--user", "daemon-reload")
	if err == nil {
		_, err = s.run(ctx, "systemctl", "--user", "enable", name)
	}
	if err != nil {
		o.Note = "the unit is written, but systemd could not be told: " + err.Error()
		// what `systemctl --user enable` does, so that the next login finds it
		if err := s.link(path, name); err != nil {
			return o, err
		}
	}
	return o, nil
}

// link makes the unit wanted by the user's default target.
func (s System) link(path, name string) error {
	wants := filepath.Join(filepath.Dir(path), "default.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return fmt.Errorf("enable unit %q: %w", name, err)
	}
	if err := os.Symlink(path, filepath.Join(wants, name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("enable unit %q: %w", name, err)
	}
	return nil
}

// createTask registers a task from its XML.
func (s System) createTask(ctx context.Context, name, text string) error {
	f, err := os.CreateTemp("", "dev-task-*.xml")
	if err != nil {
		return fmt.Errorf("write task: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write task: %w", err)
	}
	_, err = s.run(ctx, "schtasks.exe", "/create", "/f", "/tn", name, "/xml", f.Name())
	return err
}

// Disable removes the entry. One that is not there is no error.
func (s System) Disable(ctx context.Context, machine string) (Outcome, error) {
	name := label(s.OS, machine)
	if s.OS == "windows" {
		if _, err := s.run(ctx, "schtasks.exe", "/query", "/tn", name); err != nil {
			return Outcome{Where: name}, nil //nolint:nilerr // there is no such task
		}
		_, err := s.run(ctx, "schtasks.exe", "/delete", "/f", "/tn", name)
		return Outcome{Where: name}, err
	}
	path := Path(s.OS, s.Home, s.ConfigHome, machine)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return Outcome{Where: path}, nil
	}
	o := Outcome{Where: path}
	if s.OS == "linux" {
		if _, err := s.run(ctx, "systemctl", "--user", "disable", name); err != nil {
			o.Note = "systemd could not be told: " + err.Error()
		}
		err := os.Remove(filepath.Join(filepath.Dir(path), "default.target.wants", name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return o, fmt.Errorf("disable unit %q: %w", name, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, fmt.Errorf("remove autostart of machine %q: %w", machine, err)
	}
	return o, nil
}

// Enabled reports whether there is an entry for the machine.
func (s System) Enabled(ctx context.Context, machine string) bool {
	if s.OS == "windows" {
		_, err := s.run(ctx, "schtasks.exe", "/query", "/tn", label(s.OS, machine))
		return err == nil
	}
	_, err := os.Lstat(Path(s.OS, s.Home, s.ConfigHome, machine))
	return err == nil
}

// Program is what starts the machine at login: the first word of the command in the entry. It is "" where there is none, and on Windows, which tells the
// user itself.
func (s System) Program(machine string) (string, error) {
	path := Path(s.OS, s.Home, s.ConfigHome, machine)
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read autostart of machine %q: %w", machine, err)
	}
	return programIn(s.OS, string(data)), nil
}
