// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	host "github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/share"
)

// pair is a share whose both ends are in this process.
type pair struct {
	t *testing.T
	// folder is the host's, target where it is mounted.
	folder, target string
	server         *host.Server
	mount          *share.Mount

	mu   sync.Mutex
	conn net.Conn
	work sync.WaitGroup
}

// everything is a watcher that promises to tell of changes; the test does so with server.Push where it matters.
type everything struct{}

func (everything) Add(string) bool { return true }
func (everything) Forget(string)   {}

// mounted mounts a new folder.
func mounted(t *testing.T, change func(*host.Options, *share.Options)) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("mounting needs /dev/fuse: %v", err)
	} else {
		f.Close()
	}
	p := &pair{t: t, folder: filepath.Join(t.TempDir(), "host"), target: filepath.Join(t.TempDir(), "guest")}
	for _, dir := range []string{p.folder, p.target} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ho := host.Options{Folder: p.folder, Watcher: everything{}, Logger: log}
	so := share.Options{Name: "test", Target: p.target, KeepsOwners: true, Log: log}
	if change != nil {
		change(&ho, &so)
	}
	var err error
	if p.server, err = host.New(ho); err != nil {
		t.Fatal(err)
	}
	if p.mount, err = share.New(so); err != nil {
		t.Skipf("this system does not let a file system be mounted: %v", err)
	}
	p.connect()
	t.Cleanup(func() {
		if err := p.mount.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
		p.disconnect()
		p.work.Wait()
		if err := p.server.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return p
}

// connect joins the two ends.
func (p *pair) connect() {
	a, b, err := socketPair(p.t.TempDir())
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.conn = a
	p.mu.Unlock()
	p.work.Go(func() { _ = p.server.Serve(context.Background(), a) })
	p.work.Go(func() { _ = p.mount.Serve(context.Background(), b) })
}

// disconnect breaks the connection.
func (p *pair) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn.Close()
}

func socketPair(dir string) (a, b net.Conn, err error) {
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

func (p *pair) guest(name string) string { return filepath.Join(p.target, name) }
func (p *pair) host(name string) string  { return filepath.Join(p.folder, name) }
