// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInflate(t *testing.T) {
	var layer, saved bytes.Buffer
	z := gzip.NewWriter(&layer)
	_, _ = io.WriteString(z, strings.Repeat("layer ", 1000))
	_ = z.Close()
	w := tar.NewWriter(&saved)
	for _, x := range []struct{ name, text string }{
		{"oci-layout", "{}"}, {"blobs/sha256/aa", layer.String()}, {"blobs/sha256/bb", "{}"}, {"blobs/sha256/cc", layer.String()}, {"index.json", "{}"},
		{"empty", ""}, {"manifest.json", `[{"Layers":["blobs/sha256/aa"]}]`},
	} {
		_ = w.WriteHeader(&tar.Header{Name: x.name, Size: int64(len(x.text)), Mode: 0o644})
		_, _ = io.WriteString(w, x.text)
	}
	_ = w.Close()
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := inflate(file, &saved); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
	}
	if len(got) != 5 || got["blobs/sha256/aa"] != strings.Repeat("layer ", 1000) || got["blobs/sha256/cc"] != got["blobs/sha256/aa"] ||
		got["blobs/sha256/bb"] != "{}" || !strings.HasPrefix(got["manifest.json"], "[{") {
		t.Errorf("the archive has %d files: %.200q", len(got), got)
	}
}
