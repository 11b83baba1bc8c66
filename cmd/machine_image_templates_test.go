// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/vmimage"
)

// TestTemplatesAreShownAndPruned: a template goes with its image, and with --all.
func TestTemplatesAreShownAndPruned(t *testing.T) {
	var said strings.Builder
	a := &app{err: &said}
	s := &vmimage.Store{Dir: t.TempDir()}
	digest := drivertest.Image(t, s, "amd64", "local")
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{digest, "of an image that is gone"} {
		d, err := a.templates(s).New([]saved.Fact{{Name: "image", Value: image}})
		if err != nil {
			t.Fatal(err)
		}
		write := func(w io.Writer) error {
			_, err := io.WriteString(w, "devices")
			return err
		}
		if err := saved.Write(t.Context(), d.File(), nil, 0, write); err != nil {
			t.Fatal(err)
		}
		if err := d.CopyDisk(t.Context(), disk); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.tellTemplates(s); err != nil || !strings.HasPrefix(said.String(), "2 ") {
		t.Errorf("said %q, %v", said.String(), err)
	}
	for _, step := range []struct {
		all  bool
		left int
	}{{false, 1}, {false, 1}, {true, 0}} {
		if _, err := a.pruneTemplates(s, step.all); err != nil {
			t.Fatal(err)
		}
		if list, err := a.templates(s).List(); err != nil || len(list) != step.left {
			t.Errorf("all %v: %d templates are left, %v", step.all, len(list), err)
		}
	}
}
