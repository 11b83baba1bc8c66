// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

// content lists an archive: what copying must keep.
func content(t *testing.T, archive io.Reader) string {
	t.Helper()
	var b strings.Builder
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %c %o %d:%d %s %q %d %v\n", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, data, h.ModTime.Unix(), h.PAXRecords["SCHILY.xattr.security.capability"] != "")
	}
}

func TestRealVolumeContent(t *testing.T) {
	r := newReal(t)
	api := enginetest.Start(t).Client(t)
	for _, name := range []string{"content-a", "content-b"} {
		if _, err := api.VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: name}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = api.VolumeRemove(t.Context(), name, client.VolumeRemoveOptions{Force: true})
		})
	}
	if empty, err := r.VolumeEmpty(r.ctx, "content-a"); err != nil || !empty {
		t.Fatalf("a new volume: empty %t, %v", empty, err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []tar.Header{
		{Name: "volume/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 999, Gid: 998},
		{Name: "volume/file", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8, Size: 3},
		{Name: "volume/hard", Typeflag: tar.TypeLink, Linkname: "volume/file", Mode: 0o4755, Uid: 7, Gid: 8},
		{Name: "volume/soft", Typeflag: tar.TypeSymlink, Linkname: "../elsewhere", Uid: 5},
		{Name: "volume/sub/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "volume/sub/pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("abc")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.FillVolume(r.ctx, "content-a", &archive); err != nil {
		t.Fatal(err)
	}
	var first string
	read := func(archive io.Reader) error { first = content(t, archive); return nil }
	if err := r.ReadVolume(r.ctx, "content-a", read); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"volume/ 5 700 999:998", "volume/file 0 4755 7:8", `"abc"`, "volume/hard 1 4755 7:8 volume/file", "volume/soft 2", "../elsewhere", "volume/sub/ 5 1777", "volume/sub/pipe 6"} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is not in\n%s", want, first)
		}
	}
	if err := r.CopyVolume(r.ctx, "content-a", "content-b"); err != nil {
		t.Fatal(err)
	}
	original := first
	if err := r.ReadVolume(r.ctx, "content-b", read); err != nil || first != original {
		t.Errorf("a copy differs: %v\n%s\nof\n%s", err, first, original)
	}
	if empty, err := r.VolumeEmpty(r.ctx, "content-b"); err != nil || empty {
		t.Errorf("a filled volume: empty %t, %v", empty, err)
	}
	if err := r.ReadVolume(r.ctx, "content-none", read); err == nil || !strings.Contains(err.Error(), "content-none") {
		t.Errorf("a volume that is not there: got %v", err)
	}
	if snap, err := r.Observe(r.ctx, compose.Query{Volumes: []string{"content-none"}}); err != nil || len(snap.Volumes) != 0 {
		t.Errorf("reading a volume made it: %v, %v", snap.Volumes, err)
	}
	left, err := api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", LabelVolumeAccess)})
	if err != nil || len(left.Items) != 0 {
		t.Errorf("left behind: %v, %v", left.Items, err)
	}
}
