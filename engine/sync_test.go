// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
)

func TestFindOwner(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:App:/app:/bin/sh\n"
	const groups = "root:x:0:\nstaff:x:50:app\n"
	for _, test := range []struct {
		user, group string
		want        Owner
	}{
		{"app", "", Owner{1000, 1001}}, {"1000", "", Owner{1000, 1001}}, {"app", "staff", Owner{1000, 50}}, {"app", "7", Owner{1000, 7}},
		{"5", "", Owner{5, 0}}, {"5", "6", Owner{5, 6}}, {"root", "", Owner{}}, {"unknown", "", Owner{}},
	} {
		if got := findOwner(test.user, test.group, passwd, groups); got != test.want {
			t.Errorf("%s:%s is %v, want %v", test.user, test.group, got, test.want)
		}
	}
}

func TestArgumentListsFit(t *testing.T) {
	var paths []string
	for i := range 5000 {
		paths = append(paths, fmt.Sprintf("/app/%050d", i))
	}
	var all []string
	for part := range argumentLists(paths) {
		if size := len(strings.Join(part, " ")); size > argumentBytes {
			t.Errorf("a list of %d bytes", size)
		}
		all = append(all, part...)
	}
	if !slices.Equal(all, paths) {
		t.Errorf("%d of %d paths", len(all), len(paths))
	}
}

func TestArchiveOfFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	var buf bytes.Buffer
	unread, err := writeArchive(&buf, []compose.WatchCopy{
		{From: dir, To: "/app", Dir: true}, {From: file, To: "/app/f"}, {From: filepath.Join(dir, "gone"), To: "/app/gone"}, {From: filepath.Join(dir, "l"), To: "/app/l"},
	}, Owner{UID: 5, GID: 6})
	if err != nil || unread != nil {
		t.Fatal(err, unread)
	}
	var got []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%s %c %d:%d %q %s", h.Name, h.Typeflag, h.Uid, h.Gid, b, h.Linkname))
	}
	want := []string{`app/ 5 5:6 "" `, `app/f 0 5:6 "content" `, `app/l 2 5:6 "" f`}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFileThatShrinksIsFilledUp(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("ab"), 0o600); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := addContent(w, name, &tar.Header{Name: "f", Size: 4, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&buf)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "ab\x00\x00" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestSyncIsOneTransfer: however many files there are, the engine gets one archive.
func TestSyncIsOneTransfer(t *testing.T) {
	f := newFake(t)
	files := 0
	f.on("PUT /containers/web/archive", func(w http.ResponseWriter, r *http.Request) {
		for tr := tar.NewReader(r.Body); ; files++ {
			if _, err := tr.Next(); err != nil {
				break
			}
		}
		w.WriteHeader(http.StatusOK)
	})
	dir := t.TempDir()
	var copies []compose.WatchCopy
	for i := range 500 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, compose.WatchCopy{From: name, To: fmt.Sprintf("/app/%d", i)})
	}
	if err := f.client().SyncFiles(t.Context(), "web", SyncOptions{Copy: copies}); err != nil {
		t.Fatal(err)
	}
	if n := f.count("PUT /containers/web/archive"); n != 1 || files != len(copies) {
		t.Errorf("%d files in %d transfers", files, n)
	}
}

func TestSyncToAReadOnlyContainer(t *testing.T) {
	f := newFake(t)
	f.reply("PUT /containers/web/archive", http.StatusForbidden, map[string]string{"message": "container rootfs is marked read-only"})
	err := f.client().SyncFiles(t.Context(), "web", SyncOptions{Copy: []compose.WatchCopy{{From: "/none", To: "/app/x"}}})
	if err == nil || !strings.Contains(hintOf(err), "mount the folder") {
		t.Errorf("%v, hint %q", err, hintOf(err))
	}
}

// inContainer runs a command and gives its output.
func (r *real) inContainer(ref compose.Ref, command ...string) string {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.Exec(r.ctx, ref.ID, ExecOptions{Command: command, User: "0", Streams: Streams{Out: &out, Err: &out}}); err != nil {
		return strings.TrimSpace(out.String()) + " " + err.Error()
	}
	return strings.TrimSpace(out.String())
}

func TestRealSync(t *testing.T) {
	r := newReal(t)
	ref := r.run("web", "mkdir -p /app/old/deep /app/swap; touch /app/old/deep/f /app/swap/f /app/1 /app/2 /app/3 /app/4 /app/5 /app/stays; exec sleep 1000",
		nil)
	r.until(ref, "test -e /app/stays")
	dir := t.TempDir()
	for name, content := range map[string]string{"f": "one", "swap": "a file now"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "new"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../f", filepath.Join(dir, "new", "link")); err != nil {
		t.Fatal(err)
	}
	from := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	err := r.SyncFiles(r.ctx, ref.ID, SyncOptions{
		Remove: []string{"/app/old", "/app/not/there", "/app/1", "/app/2", "/app/3", "/app/4", "/app/5"},
		Copy: []compose.WatchCopy{
			{From: from("f"), To: "/app/f"}, {From: from("new"), To: "/app/new", Dir: true}, {From: from("new/link"), To: "/app/new/link"},
			{From: from("swap"), To: "/app/swap"}, {From: from("f"), To: "/made/as/needed/f"},
		},
		Owner: Owner{UID: 65534, GID: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := r.inContainer(ref, "sh", "-c", "cd /app; ls; cat new/link; echo; stat -c '%u:%g %a %F' f new; cat swap; echo; ls /made/as/needed")
	want := "f\nnew\nstays\nswap\none\n65534:1 755 regular file\n65534:1 750 directory\na file now\nf"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// until runs a command in a container until it succeeds.
func (r *real) until(ref compose.Ref, script string) {
	r.t.Helper()
	for r.inContainer(ref, "sh", "-c", script+" && echo yes") != "yes" {
		if r.ctx.Err() != nil {
			r.t.Fatalf("%s: %v", script, r.ctx.Err())
		}
	}
}

// TestRealSyncWithoutAShell changes the files of a container that has nothing but one static program.
func TestRealSyncWithoutAShell(t *testing.T) {
	r := newReal(t)
	image := r.bareImage()
	s := r.spec("web", "", func(s *compose.ContainerSpec) {
		s.Config.Image, s.Config.User = image, "4000:4001"
		s.Config.Cmd = []string{"/busybox", "sleep", "1000"}
	})
	ref := compose.Ref{ID: r.apply(compose.Op{Kind: compose.OpCreateContainer, Service: "web", Container: &s}).ID}
	r.start(ref)
	owner, err := r.ContainerOwner(r.ctx, ref.ID)
	if err != nil || owner != (Owner{4000, 4001}) {
		t.Fatalf("owner %v, %v", owner, err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("in a bare container"), 0o600); err != nil {
		t.Fatal(err)
	}
	var copies []compose.WatchCopy
	var remove []string
	for i := range 6 {
		to := fmt.Sprintf("/app/dir%d/sub/f", i)
		copies = append(copies, compose.WatchCopy{From: file, To: to})
		remove = append(remove, fmt.Sprintf("/app/dir%d", i))
	}
	copies = append(copies, compose.WatchCopy{From: file, To: "/app/stays"})
	if err := r.SyncFiles(r.ctx, ref.ID, SyncOptions{Copy: copies, Owner: owner}); err != nil {
		t.Fatal(err)
	}
	if got := r.inContainer(ref, "/busybox", "cat", "/app/dir5/sub/f", "/app/stays"); got != "in a bare containerin a bare container" {
		t.Fatalf("copied: %q", got)
	}
	if err := r.SyncFiles(r.ctx, ref.ID, SyncOptions{Remove: append(remove, "/app/never/was")}); err != nil {
		t.Fatal(err)
	}
	if got := r.inContainer(ref, "/busybox", "ls", "/app"); got != "stays" {
		t.Errorf("left after the removal: %q", got)
	}
	if got := r.inContainer(ref, "/busybox", "stat", "-c", "%u:%g %a", "/app/stays"); got != "4000:4001 600" {
		t.Errorf("owner and mode %q", got)
	}
}

// bareImage imports an image with a static program, no shell and no rm.
func (r *real) bareImage() string {
	r.t.Helper()
	api, err := r.conn(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	from := r.create("donor", "true", nil)
	donor, err := api.CopyFromContainer(r.ctx, from.ID, client.CopyFromContainerOptions{SourcePath: "/bin/busybox"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer donor.Content.Close()
	const ref = "bare:engine-test"
	done, err := api.ImageImport(r.ctx, client.ImageImportSource{Source: donor.Content, SourceName: "-"}, ref, client.ImageImportOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer done.Close()
	if out, err := io.ReadAll(done); err != nil || bytes.Contains(out, []byte("errorDetail")) {
		r.t.Fatalf("%v: %s", err, out)
	}
	r.apply(compose.Op{Kind: compose.OpRemoveContainer, Ref: from, Force: true})
	return ref
}
