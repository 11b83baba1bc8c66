// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/hostagent/fileevents"
	host "github.com/seed71221737/dev/hostagent/share"
)

// servedFolder and servedSocket tell this program that it is the host's half of a test.
const (
	servedFolder = "DEV_TEST_SERVED_FOLDER"
	servedSocket = "DEV_TEST_SERVED_SOCKET"
)

// TestHostProgram is no test but a host agent's share, which can be killed: it serves a folder with its file events.
func TestHostProgram(t *testing.T) {
	folder := os.Getenv(servedFolder)
	if folder == "" {
		t.Skip("it is run by TestEventsMissed")
	}
	w, err := fileevents.Open(folder, fileevents.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := host.New(host.Options{Folder: folder, Watcher: w, Journal: w.Ledger(), Events: w, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", os.Getenv(servedSocket))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
}

// hostProgram serves a pair's folder from another process, in place of who has served it.
func (p *pair) hostProgram() *exec.Cmd {
	p.t.Helper()
	socket := filepath.Join(p.t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostProgram$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), servedFolder+"="+p.folder, servedSocket+"="+socket)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		p.t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	p.work.Go(func() { _ = p.mount.Serve(context.Background(), conn) })
	return cmd
}

// What changes while no host agent lives is told to programs in the guest as soon as one does, and all that follows, too.
func TestEventsMissed(t *testing.T) {
	p := mounted(t, nil)
	p.disconnect()
	furnish(t, p.folder)
	for _, name := range []string{"gone", "moved over", "replaced", "grown", "mode", "same"} {
		if err := os.WriteFile(p.host("sub/"+name), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first := p.hostProgram()
	for _, dir := range []string{p.target, p.guest("sub"), p.guest("sub/deep")} { // as a program does that watches
		if _, err := os.ReadDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, p.target, "", "sub", "sub/deep", "watched")
	w.until(mark(t, p.folder))
	if err := errors.Join(first.Process.Signal(unix.SIGKILL), ignoreKilled(first.Wait())); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return p.host("sub/" + name) }
	if err := errors.Join(
		os.Remove(in("gone")), os.WriteFile(in("new"), []byte("new"), 0o644), os.Mkdir(in("folder"), 0o755), os.WriteFile(in("grown"), []byte("longer than it was"), 0o644),
		os.Chmod(in("mode"), 0o600), os.WriteFile(in("tmp"), []byte("other"), 0o644), os.Rename(in("tmp"), in("replaced")), os.WriteFile(p.host("watched"), []byte("seen"), 0o644),
		os.WriteFile(p.host("sub/deep/new"), nil, 0o644), os.Rename(in("same"), in("moved over")),
	); err != nil {
		t.Fatal(err)
	}
	second := p.hostProgram()
	var got []string
	for !slices.Contains(got, "watched: CLOSE_WRITE") || !slices.Contains(got, "sub: CREATE|ISDIR folder") { // events of now may come between
		got = append(got, w.until(mark(t, p.folder))...)
	}
	for _, want := range []string{
		"sub: DELETE gone", "sub: CREATE new", "sub: MODIFY new", "sub: CLOSE_WRITE new", "sub: CREATE|ISDIR folder", "sub: MODIFY grown", "sub: CLOSE_WRITE grown", "sub: ATTRIB mode",
		"sub: DELETE replaced", "sub: CREATE replaced", "sub: MODIFY replaced", "sub/deep: CREATE new", "watched: MODIFY", "watched: CLOSE_WRITE", "sub: DELETE same", "sub: CREATE moved over",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("nobody said %q in the guest:\n%s", want, strings.Join(got, "\n"))
			break
		}
	}
	for _, line := range got {
		if strings.HasSuffix(line, "sub/file") || strings.HasSuffix(line, " link") || strings.HasSuffix(line, " other") {
			t.Errorf("nothing happened, and the guest was told %q", line)
		}
	}
	same(t, p.folder, p.target)
	if err := os.WriteFile(p.host("sub/deep/new"), []byte("later"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := w.until(mark(t, p.folder)); !slices.Contains(got, "sub/deep: MODIFY new") {
		t.Errorf("a change after it: %q", got)
	}
	_ = second.Process.Signal(unix.SIGKILL) // the cleanup waits
}

// ignoreKilled leaves out that a program was killed.
func ignoreKilled(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return nil
		}
		return fmt.Errorf("it was to be killed: %w", err)
	}
	return err
}
