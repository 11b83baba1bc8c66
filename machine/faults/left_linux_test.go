// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atRest are the files that a user's folder has when all machines are stopped: docs/machine-dir.md says what each is. Sockets, drafts, journals and disks that
// were to replace others are not among them, and neither is memory without the note that makes it usable. A template that was begun goes when it is old.
var atRest = regexp.MustCompile(`^(` + strings.Join([]string{
	`accelerator\.json`,
	`machines/\.active`,
	`machines/\.locks/box`,
	`machines/box/(id|machine\.yaml|data\.img|seed\.img|ports\.json|containers\.json|known_hosts|run\.lock|share\d+\.owners)`,
	`machines/box/(id|host)_ed25519(\.pub)?`,
	`machines/box/(agent|console)\.log(\.1)?`,
	`machines/box/tls/[a-z-]+\.pem`,
	`machines/box/memory/(lock|state\.json|[a-z0-9]+\.mem)`,
	`machines/box/snapshots/[a-z0-9][^/]*/(snapshot\.json|data\.img|data\.sums)`,
	`machine-images/(lock|tags\.json|templates/lock)`,
	`machine-images/(images|uses)/[0-9a-f]{64}/[^./][^/]*`,
	`machine-images/templates/([0-9a-f]+|\.tmp-[a-z0-9]+)/(lock|disk\.img|state\.json|[a-z0-9]+\.mem)`,
}, "|") + `)$`)

// nothingLeft asserts that of what ran while the machine was up there is nothing any more: no process, no mount, no lock that is held, no socket, and no file
// that nobody will use.
func (l *lab) nothingLeft(t *testing.T) {
	t.Helper()
	l.noProcesses(t)
	l.noMounts(t)
	compressing := len(l.compressors(t)) > 0 // with the time that nobody else wants: whole minutes on a busy host
	root := filepath.Join(l.home, "h")
	states := map[string]int{} // memories, and notes of them, by their folder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if err == nil && compressing && (e.Name() == "memory" || e.Name() == "templates") {
				return fs.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() || !atRest.MatchString(name) {
			t.Errorf("%s is left over (%v)", name, e.Type())
		}
		switch filepath.Ext(name) {
		case ".mem":
			if !strings.Contains(name, ".tmp-") {
				states[filepath.Dir(name)]++
			}
		case ".lock":
			l.free(t, path)
		}
		if filepath.Base(name) == "lock" || strings.Contains(name, ".locks/") {
			l.free(t, path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for folder, memories := range states {
		if _, err := os.Stat(filepath.Join(root, folder, "state.json")); err != nil || memories != 1 {
			t.Errorf("%s has %d files with memory, and its note: %v", folder, memories, err)
		}
	}
}

// free asserts that nobody holds a lock.
func (l *lab) free(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		t.Errorf("the lock %s is held: %v", path, err)
	}
}

// noMounts asserts that nothing is mounted in the lab.
func (l *lab) noMounts(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.home) {
			t.Errorf("a mount is left over: %s", line)
		}
	}
}

// noProcesses asserts that no process of the lab is left.
func (l *lab) noProcesses(t *testing.T) {
	t.Helper()
	var left []process
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = l.processes(t, ""); len(left) == 0 {
			return
		}
	}
	for _, p := range left {
		t.Errorf("process %d is left over: %q", p.pid, p.args)
	}
}

// noJournal asserts that no change of the machine is under way.
func (l *lab) noJournal(t *testing.T) {
	t.Helper()
	if data, err := os.ReadFile(l.file("journal.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a journal is left over: %v\n%s", err, data)
	}
}
