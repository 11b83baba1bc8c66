// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	host "github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// beginFolder makes a folder in which further files are made while nobody waits.
func (p *pair) beginFolder(name string) {
	p.t.Helper()
	if err := errors.Join(os.Mkdir(p.guest(name), 0o755), os.WriteFile(p.guest(name+"/first"), nil, 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

// TestAhead: files whose close did not wait for the host are there for whatever is done next, and on the host once that is waited for.
func TestAhead(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	text := bytes.Repeat([]byte("text\n"), 1000)
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(p.guest(name), text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	onHost := func(name string) {
		t.Helper()
		if got, err := os.ReadFile(p.host(name)); err != nil || !bytes.Equal(got, text) {
			t.Errorf("the host has %d bytes of %s: %v", len(got), name, err)
		}
	}
	for round := range 20 {
		write("d/moved")
		if err := os.Rename(p.guest("d/moved"), p.guest("d/there")); err != nil {
			t.Fatal(err)
		}
		onHost("d/there")
		write("d/linked")
		if err := os.Link(p.guest("d/linked"), p.guest("d/second")); err != nil {
			t.Fatal(err)
		}
		onHost("d/second")
		write("d/a")
		write("d/b")
		if entries, err := os.ReadDir(p.guest("d")); err != nil || len(entries) != 6 {
			t.Fatalf("round %d: %d entries, %v", round, len(entries), err)
		}
		if info, err := os.Stat(p.guest("d/a")); err != nil || info.Size() != int64(len(text)) || info.Mode().Perm() != 0o640 {
			t.Errorf("%v, %v", info, err)
		}
		write("d/c")
		dir, err := os.Open(p.guest("d"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(p.host("d/c")); err != nil {
			t.Error(err)
		}
		write("d/e")
		p.mount.Settle()
		onHost("d/e")
		write("d/f")
		for _, name := range []string{"there", "linked", "second", "a", "b", "c", "e", "f"} {
			if err := os.Remove(p.guest("d/" + name)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(p.guest("d/" + name)); !os.IsNotExist(err) {
				t.Errorf("the guest still has %s: %v", name, err)
			}
		}
		p.mount.Settle()
		for _, name := range []string{"there", "linked", "second", "a", "b", "c", "e", "f"} {
			if _, err := os.Lstat(p.host("d/" + name)); !os.IsNotExist(err) {
				t.Errorf("the host still has %s: %v", name, err)
			}
		}
	}
	write("d/g")
	if err := unix.Rmdir(p.guest("d")); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("a folder with a file was removed: %v", err)
	}
	write("d/h")
	if err := os.Rename(p.guest("d"), p.guest("e")); err != nil {
		t.Fatal(err)
	}
	onHost("e/h")
}

// TestAheadLarge: a file that is larger than what is sent with its making is whole after fsync, and once everything is waited for.
func TestAheadLarge(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	if err := os.WriteFile(p.guest("d/large"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	p.mount.Settle()
	if got, err := os.ReadFile(p.host("d/large")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the host has %d bytes: %v", len(got), err)
	}
	f, err := os.Create(p.guest("d/synced"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.host("d/synced")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the host has %d bytes: %v", len(got), err)
	}
}

// TestAheadNewHost: what a host that was started again does not remember is made anew, whether the one before it had made it or not.
func TestAheadNewHost(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	const count = 60
	write := func(from, to int) (err error) {
		for i := from; i < to; i++ {
			err = errors.Join(err, os.WriteFile(p.guest(fmt.Sprintf("d/f%d", i)), fmt.Appendf(nil, "file %d", i), 0o644))
		}
		return err
	}
	if err := write(0, count/2); err != nil {
		t.Fatal(err)
	}
	p.disconnect()
	written := make(chan error, 1)
	go func() { written <- write(count/2, count) }()
	old := p.server
	defer old.Close()
	var err error
	if p.server, err = host.New(host.Options{Folder: p.folder, Watcher: everything{}, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	p.connect()
	if err := <-written; err != nil {
		t.Error(err)
	}
	for i := range count {
		eventually(t, "a file on the host", func() error {
			got, err := os.ReadFile(p.host(fmt.Sprintf("d/f%d", i)))
			if err == nil && string(got) != fmt.Sprintf("file %d", i) {
				err = fmt.Errorf("%q", got)
			}
			return err
		})
		if got, err := os.ReadFile(p.guest(fmt.Sprintf("d/f%d", i))); err != nil || string(got) != fmt.Sprintf("file %d", i) {
			t.Errorf("file %d: %q, %v", i, got, err)
		}
	}
}

// TestAheadCollision: a name that the host takes at the same moment loses neither file where the program demanded a free name, and is told on close.
func TestAheadCollision(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	if err := os.WriteFile(p.host("d/taken"), []byte("the host's"), 0o644); err != nil { // nobody tells the guest
		t.Fatal(err)
	}
	f, err := os.OpenFile(p.guest("d/taken"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		_, writeErr := f.WriteString("the guest's")
		err = errors.Join(writeErr, f.Close())
	}
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("a name was taken twice: %v", err)
	}
	if got, err := os.ReadFile(p.host("d/taken")); err != nil || string(got) != "the host's" {
		t.Errorf("the host has %q, %v", got, err)
	}
	eventually(t, "the host's file", func() error {
		got, err := os.ReadFile(p.guest("d/taken"))
		if err == nil && string(got) != "the host's" {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
}

// TestAheadRefused: a file that the host cannot make after all is not there, and the folder is as the host has it.
func TestAheadRefused(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	if err := os.RemoveAll(p.host("d")); err != nil { // nobody tells the guest
		t.Fatal(err)
	}
	if err := os.WriteFile(p.guest("d/f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.mount.Settle()
	p.server.Push(wire.PushInvalidate, wire.AppendPaths(nil, []string{"d"}))
	eventually(t, "the folder", func() error {
		if _, err := os.Lstat(p.guest("d/f")); !os.IsNotExist(err) {
			return fmt.Errorf("it still has the file: %w", err)
		}
		return nil
	})
	if entries, err := filepath.Glob(p.host("*")); err != nil || len(entries) > 0 {
		t.Errorf("the host has %q, %v", entries, err)
	}
}

// TestAheadRemoved: a name that was removed without waiting for the host can be used for anything at once, the file lives on while it is open, and its folder can
// be removed.
func TestAheadRemoved(t *testing.T) {
	p := mounted(t, nil)
	for range 10 {
		p.beginFolder("d")
		for _, name := range []string{"a", "b", "c", "e", "f", "g", "h"} {
			if err := os.WriteFile(p.guest("d/"+name), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p.mount.Settle()
		open, err := os.Open(p.guest("d/a"))
		if err != nil {
			t.Fatal(err)
		}
		remove := func(name string) error { return os.Remove(p.guest("d/" + name)) }
		err = errors.Join(
			remove("a"),
			remove("b"), os.WriteFile(p.guest("d/b"), []byte("new"), 0o644),
			remove("c"), os.Rename(p.guest("d/b"), p.guest("d/c")),
			remove("e"), os.Mkdir(p.guest("d/e"), 0o755),
			remove("f"), os.Symlink("c", p.guest("d/f")),
			remove("g"), os.Link(p.guest("d/h"), p.guest("d/g")), remove("h"),
		)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 2)
		if n, _ := open.ReadAt(text, 0); string(text[:n]) != "a" {
			t.Errorf("a file without a name has %q", text[:n])
		}
		if err := open.Close(); err != nil {
			t.Error(err)
		}
		p.mount.Settle()
		for _, dir := range []string{p.guest("d"), p.host("d")} {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
				t.Errorf("%s has %v, %v", dir, entries, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != "new" {
				t.Errorf("%s/f has %q, %v", dir, got, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "g")); err != nil || string(got) != "h" {
				t.Errorf("%s/g has %q, %v", dir, got, err)
			}
		}
		if err := os.RemoveAll(p.guest("d")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(p.host("d")); !os.IsNotExist(err) {
			t.Errorf("the host still has the folder: %v", err)
		}
	}
}

// TestAheadReplaced: a file that the host has put in the place of one that the guest removes stays.
func TestAheadReplaced(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	if err := os.WriteFile(p.guest("d/f"), []byte("the guest's"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.mount.Settle()
	err := errors.Join(os.WriteFile(p.host("d/new"), []byte("the host's"), 0o644), os.Rename(p.host("d/new"), p.host("d/f")), os.Remove(p.guest("d/f"))) // nobody tells the guest
	if err != nil {
		t.Fatal(err)
	}
	p.mount.Settle()
	if got, err := os.ReadFile(p.host("d/f")); err != nil || string(got) != "the host's" {
		t.Errorf("the host has %q, %v", got, err)
	}
}

// TestAheadTimes: a folder's time does not go back when the host has made what was made in it.
func TestAheadTimes(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	last := int64(0)
	for i := range 200 {
		if err := os.WriteFile(p.guest(fmt.Sprintf("d/f%d", i)), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			p.mount.Settle()
		}
		info, err := os.Stat(p.guest("d"))
		if err != nil {
			t.Fatal(err)
		}
		if now := info.ModTime().UnixNano(); now < last {
			t.Fatalf("file %d: the folder's time went back by %v", i, time.Duration(last-now))
		} else {
			last = now
		}
	}
}

// TestAheadOfMovedFolders: what is made and removed in a folder while a folder above it is renamed ends up in it, or its program is told.
func TestAheadOfMovedFolders(t *testing.T) {
	p := mounted(t, nil)
	if err := os.MkdirAll(p.guest("a"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.beginFolder("a/d")
	dir, err := unix.Open(p.guest("a/d"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(dir) }()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for from, to := "a", "b"; ; from, to = to, from {
			select {
			case <-stop:
				return
			default:
			}
			if err := os.Rename(p.guest(from), p.guest(to)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	made, removed := map[string]bool{}, map[string]bool{}
	for i := range 400 {
		name := fmt.Sprint("f", i)
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			continue // it is told
		}
		_, err = unix.Write(fd, []byte(name))
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			continue
		}
		if made[name] = true; i%2 == 0 && unix.Unlinkat(dir, name, 0) == nil {
			removed[name] = true
		}
	}
	close(stop)
	<-stopped
	p.mount.Settle()
	found, err := filepath.Glob(p.host("[ab]/d"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the host has %q, %v", found, err)
	}
	if len(removed) == 0 {
		t.Error("nothing was removed")
	}
	for name := range made {
		got, err := os.ReadFile(filepath.Join(found[0], name))
		switch {
		case removed[name] && !os.IsNotExist(err):
			t.Errorf("%s was removed, and is there: %q, %v", name, got, err)
		case !removed[name] && (err != nil || string(got) != name):
			t.Errorf("%s was closed without an error, and has %q: %v", name, got, err)
		}
	}
}

// TestAheadOfNobody: while the host is about to go, or not there, who closes a file waits for it.
func TestAheadOfNobody(t *testing.T) {
	p := mounted(t, nil)
	p.beginFolder("d")
	p.mount.Hold()
	if err := os.WriteFile(p.guest("d/held"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.host("d/held")); err != nil || string(got) != "text" {
		t.Errorf("the host has %q: %v", got, err)
	}
	p.disconnect()
	closed := make(chan error, 1)
	go func() { closed <- os.WriteFile(p.guest("d/later"), []byte("text"), 0o644) }()
	select {
	case err := <-closed:
		t.Errorf("a file was closed without a host: %v", err)
	case <-time.After(300 * time.Millisecond): // many times what goes ahead is held back for
	}
	p.connect()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(p.host("d/later")); err != nil || string(got) != "text" {
		t.Errorf("the host has %q: %v", got, err)
	}
}
