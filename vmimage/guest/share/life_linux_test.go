// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	host "github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/share"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// TestReconnect: programs that work while the connection breaks again and again notice nothing, and nothing is done twice.
func TestReconnect(t *testing.T) {
	p := mounted(t, nil)
	kept, err := os.OpenFile(p.guest("kept"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	stop, ended := make(chan struct{}), make(chan struct{})
	var done atomic.Int64
	go func() {
		defer close(ended)
		const pause = 15 * time.Millisecond
		for wait, seen := pause, int64(0); ; {
			select {
			case <-stop:
				return
			case <-time.After(wait):
				p.disconnect()
				p.connect()
			}
			if wait *= 2; done.Load() != seen { // else this computer is too busy to get anything answered meanwhile
				wait, seen = pause, done.Load()
			}
		}
	}()
	due := ""
	for i := range 150 {
		done.Store(int64(i))
		name := p.guest(fmt.Sprintf("f%d", i))
		text := strings.Repeat(fmt.Sprint(i), 1000)
		err := errors.Join(os.WriteFile(name, []byte(text), 0o644), os.Mkdir(name+".d", 0o755), os.Rename(name, name+".d/x"), os.Link(name+".d/x", name+".l"), os.Remove(name+".l"))
		if err != nil {
			t.Errorf("file %d: %v", i, err)
			break
		}
		line := fmt.Sprintf("line %d\n", i)
		due += line
		if _, err := kept.WriteString(line); err != nil {
			t.Errorf("append line %d: %v", i, err)
			break
		}
		got, err := os.ReadFile(p.host(fmt.Sprintf("f%d.d/x", i)))
		if err != nil || string(got) != text {
			t.Errorf("file %d: %d bytes, %v", i, len(got), err)
			break
		}
	}
	close(stop)
	<-ended
	if err := kept.Sync(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(p.host("kept")); err != nil || string(got) != due {
		t.Errorf("the file that lines were appended to has %d bytes instead of %d: %v", len(got), len(due), err)
	}
}

// TestNewHost: a host that remembers nothing, as one that was started again, finds a guest that goes on with what is open.
func TestNewHost(t *testing.T) {
	p := mounted(t, nil)
	if err := os.WriteFile(p.guest("f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := os.OpenFile(p.guest("f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p.disconnect()
	if err := os.WriteFile(p.host("f2"), []byte("meanwhile"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := p.server
	if p.server, err = host.New(host.Options{Folder: p.folder, Watcher: everything{}, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	p.connect()
	if _, err := h.WriteAt([]byte("TEXT"), 0); err != nil {
		t.Error(err)
	}
	if err := h.Sync(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(p.host("f")); err != nil || string(got) != "TEXT" {
		t.Errorf("the host has %q, %v", got, err)
	}
	eventually(t, "what changed meanwhile", func() error {
		got, err := os.ReadFile(p.guest("f2"))
		if err == nil && string(got) != "meanwhile" {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
}

// eventually tries until something holds.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestFullDisk: who writes to a full disk hears of it, at the latest when closing the file.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	p := mounted(t, func(o *host.Options, _ *share.Options) { o.Folder = small })
	if err := os.WriteFile(p.guest("first"), []byte("fits"), 0o644); err != nil { // further files are made without waiting
		t.Fatal(err)
	}
	failed := 0
	for i := range 20 {
		err := os.WriteFile(p.guest(fmt.Sprintf("f%d", i)), bytes.Repeat([]byte("x"), 64<<10), 0o644)
		if errors.Is(err, unix.ENOSPC) {
			failed++
			continue
		}
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		if got, err := os.ReadFile(p.guest(fmt.Sprintf("f%d", i))); err != nil || len(got) != 64<<10 {
			t.Errorf("file %d has %d bytes, and nobody was told: %v", i, len(got), err)
		}
	}
	if failed < 10 {
		t.Errorf("%d of 20 files of 64 KiB failed on a disk of 512 KiB", failed)
	}
	h, err := os.OpenFile(p.guest("first"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, writeErr := h.Write(bytes.Repeat([]byte("x"), 1<<20))
	syncErr := h.Sync()
	if err := errors.Join(writeErr, syncErr, h.Close()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a file that does not fit: %v", err)
	}
}

// TestConfined: whatever the guest asks for, nothing outside the folder is reached.
func TestConfined(t *testing.T) {
	p := mounted(t, nil)
	secret := t.TempDir()
	if err := errors.Join(os.WriteFile(secret+"/key", []byte("secret"), 0o600), os.Symlink(secret, p.host("out")), os.Symlink("../../../../../../etc", p.host("up")), os.Symlink(secret+"/key", p.host("file"))); err != nil {
		t.Fatal(err)
	}
	a, b, err := socketPair(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.work.Go(func() { _ = p.server.Serve(t.Context(), a) })
	defer b.Close()
	hello := wire.Hello{Version: wire.Version, Session: [16]byte{9}}
	if _, err := b.Write(hello.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, wire.WelcomeSize)); err != nil {
		t.Fatal(err)
	}
	for i, r := range []wire.Request{
		{Op: wire.OpLookup, Path: "out", Name: "key"}, {Op: wire.OpRead, Path: "out/key", Size: 100}, {Op: wire.OpRead, Path: "file", Size: 100}, {Op: wire.OpRead, Path: "../" + secret + "/key", Size: 100},
		{Op: wire.OpRead, Path: secret + "/key", Size: 100}, {Op: wire.OpReaddir, Path: "up"}, {Op: wire.OpReaddir, Path: ".."}, {Op: wire.OpReaddir, Path: "/"}, {Op: wire.OpLookup, Name: ".."}, {Op: wire.OpLookup, Name: "out/key"},
		{Op: wire.OpCreate, Path: "out", Name: "new", Mode: 0o644}, {Op: wire.OpUnlink, Path: "out", Name: "key"}, {Op: wire.OpRename, Path: "out", Name: "key", Name2: "stolen"}, {Op: wire.OpWrite, Path: "file", Data: []byte("x")},
		{Op: wire.OpLink, Path2: "out/key", Name: "linked"}, {Op: wire.OpSetattr, Path: "out/key", Valid: wire.SetMode, Mode: 0o777}, {Op: wire.OpSetattr, Path: "file", Valid: wire.SetSize}, {Op: wire.OpMkdir, Path: "", Name: "../x"},
	} {
		r.ID = uint64(i + 1)
		if _, err := b.Write(r.Append(nil)); err != nil {
			t.Fatal(err)
		}
		body, err := wire.ReadFrame(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := wire.ParseResponse(body); err != nil || res.Errno == 0 {
			t.Errorf("request %d (%+v) was answered: %+v, %v", i, r, res, err)
		}
	}
	if got, err := os.ReadFile(secret + "/key"); err != nil || string(got) != "secret" {
		t.Errorf("outside there is %q now, %v", got, err)
	}
	if info, err := os.Stat(secret + "/key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("outside the mode is %v now, %v", info, err)
	}
}

// TestPush: what the host says has changed is not believed any more, be it that a name is there, that it is not, or what it contains.
func TestPush(t *testing.T) {
	p := mounted(t, nil)
	if err := os.WriteFile(p.host("f"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.guest("f")); err != nil || string(got) != "one" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := os.Stat(p.guest("g")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(p.host("f"), []byte("another"), 0o644), os.WriteFile(p.host("g"), []byte("new"), 0o644)); err != nil {
		t.Fatal(err)
	}
	p.server.Push(wire.PushInvalidate, wire.AppendPaths(nil, []string{"f", "g"}))
	for name, due := range map[string]string{"f": "another", "g": "new"} {
		eventually(t, name, func() error {
			got, err := os.ReadFile(p.guest(name))
			if err == nil && string(got) != due {
				err = fmt.Errorf("it has %q", got)
			}
			return err
		})
	}
	if err := os.Remove(p.host("g")); err != nil {
		t.Fatal(err)
	}
	p.server.Push(wire.PushInvalidate, wire.AppendPaths(nil, []string{"g"}))
	eventually(t, "g", func() error {
		if _, err := os.Stat(p.guest("g")); !os.IsNotExist(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

// TestReadOnly: nothing can be changed, and the host would not do it either.
func TestReadOnly(t *testing.T) {
	p := mounted(t, func(h *host.Options, s *share.Options) { h.ReadOnly, s.ReadOnly = true, true })
	if err := os.WriteFile(p.host("f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.guest("f")); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
	for what, err := range map[string]error{
		"write": os.WriteFile(p.guest("f"), nil, 0o644), "make": os.Mkdir(p.guest("d"), 0o755), "remove": os.Remove(p.guest("f")), "mode": os.Chmod(p.guest("f"), 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
