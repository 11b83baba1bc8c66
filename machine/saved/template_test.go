// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// templateRig is a store of templates and a new machine's disk.
type templateRig struct {
	*Templates
	t    *testing.T
	disk string
}

func newTemplateRig(t *testing.T) *templateRig {
	t.Helper()
	dir := t.TempDir()
	r := &templateRig{&Templates{Dir: filepath.Join(dir, "templates"), Most: 2, Logger: slog.New(slog.DiscardHandler)}, t, filepath.Join(dir, "disk")}
	f, err := os.Create(r.disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if empty, err := Empty(r.disk); err != nil || !empty {
		t.Skipf("this file system does not tell an empty disk from others: %v", err)
	}
	return r
}

// make makes a template of a disk with a text on it.
func (r *templateRig) make(facts []Fact, text string) {
	r.t.Helper()
	d, err := r.New(facts)
	if err != nil {
		r.t.Fatal(err)
	}
	writeState(r.t, d.File(), someMemory(), "devices")
	first := filepath.Join(r.t.TempDir(), "first")
	if err := os.WriteFile(first, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := d.CopyDisk(r.t.Context(), first); err != nil {
		r.t.Fatal(err)
	}
	if err := d.Commit([]byte(`"secret"`)); err != nil {
		r.t.Fatal(err)
	}
}

func factsOf(name string) []Fact { return []Fact{{"image", name}} }

func TestTemplate(t *testing.T) {
	r := newTemplateRig(t)
	if x, why, err := r.Take(t.Context(), factsOf("a")); x != nil || why != "" || err != nil {
		t.Fatalf("Take where there is none: %v, %q, %v", x, why, err)
	}
	r.make(factsOf("a"), "pristine")
	r.make(factsOf("a"), "made twice at once")
	if !r.Has(factsOf("a")) || r.Has(factsOf("b")) {
		t.Fatal("Has is wrong")
	}
	for range 2 { // any number of times
		x, why, err := r.Take(t.Context(), factsOf("a"))
		if err != nil || x == nil {
			t.Fatalf("Take: %q, %v", why, err)
		}
		if string(x.Notes) != `"secret"` {
			t.Errorf("notes are %s", x.Notes)
		}
		if err := Verify(t.Context(), x.Path()); err != nil {
			t.Error(err)
		}
		if freed, err := r.Prune(func(TemplateInfo) bool { return false }); freed != 0 || err != nil {
			t.Errorf("a template in use was removed: %d, %v", freed, err)
		}
		disk := filepath.Join(t.TempDir(), "new")
		f, _ := os.Create(disk)
		f.Truncate(100)
		f.Close()
		if err := x.CopyDisk(t.Context(), disk); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(disk); string(data) != "pristine" {
			t.Errorf("the disk holds %q", data)
		}
		if err := x.CopyDisk(t.Context(), disk); err == nil || !strings.Contains(err.Error(), "has data") {
			t.Errorf("a disk with data was replaced: %v", err)
		}
		x.Release()
	}
	if err := Shrink(t.Context(), r.folder(factsOf("a"))); err != nil {
		t.Error(err)
	}
	if x, why, err := r.Take(t.Context(), factsOf("a")); err != nil || x == nil {
		t.Errorf("Take of a compressed one: %q, %v", why, err)
	} else {
		x.Release()
	}
}

// TestTemplateDamaged: what cannot be used goes, and can be made again.
func TestTemplateDamaged(t *testing.T) {
	r := newTemplateRig(t)
	r.make(factsOf("a"), "pristine")
	if err := os.WriteFile(filepath.Join(r.folder(factsOf("a")), diskName), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if x, why, err := r.Take(t.Context(), factsOf("a")); x != nil || why == "" || err != nil {
		t.Errorf("Take: %v, %q, %v", x, why, err)
	}
	if r.Has(factsOf("a")) {
		t.Error("it is still there")
	}
	r.make(factsOf("a"), "again")
	if !r.Has(factsOf("a")) {
		t.Error("it cannot be made again")
	}
}

func TestTemplatesAreBounded(t *testing.T) {
	r := newTemplateRig(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		r.make(factsOf(name), name)
	}
	list, err := r.List()
	if err != nil || len(list) != 2 || !r.Has(factsOf("d")) || !r.Has(factsOf("c")) {
		t.Errorf("%d templates are left: %v", len(list), err)
	}
	for _, x := range list {
		if x.OnHost == 0 || len(x.Facts) != 1 {
			t.Errorf("template is %+v", x)
		}
	}
	d, err := r.New(factsOf("e"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(nil); err == nil {
		t.Error("a template without memory was made")
	}
	if freed, err := r.Prune(func(TemplateInfo) bool { return false }); err != nil || freed == 0 {
		t.Errorf("Prune: %d, %v", freed, err)
	}
	if left := r.left(); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
}

// left are the names in the folder of templates, without the lock.
func (r *templateRig) left() []string {
	r.t.Helper()
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != lockName {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestTemplateOverARest: what a crash left of a template is in nobody's way.
func TestTemplateOverARest(t *testing.T) {
	r := newTemplateRig(t)
	r.make(factsOf("a"), "first")
	if err := os.Remove(filepath.Join(r.folder(factsOf("a")), infoName)); err != nil { // somebody was killed while removing it
		t.Fatal(err)
	}
	r.make(factsOf("a"), "second")
	x, why, err := r.Take(t.Context(), factsOf("a"))
	if err != nil || x == nil {
		t.Fatalf("Take: %q, %v", why, err)
	}
	x.Release()
	if left := r.left(); len(left) != 1 {
		t.Errorf("%q are there, of one template", left)
	}
}

// TestTemplateMadeByMany: several make the same one, others take and remove it, and it is whole whenever it is there.
func TestTemplateMadeByMany(t *testing.T) {
	r := newTemplateRig(t)
	done := make(chan struct{})
	var makers, others sync.WaitGroup
	for range 4 {
		makers.Go(func() {
			for range 2 {
				r.make(factsOf("a"), "pristine")
			}
		})
	}
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			x, why, err := r.Take(t.Context(), factsOf("a"))
			if err != nil || why != "" {
				t.Errorf("Take: %q, %v", why, err)
			}
			switch {
			case x == nil:
			case i%2 == 0:
				if err := x.Remove("test"); err != nil {
					t.Errorf("Remove: %v", err)
				}
			default:
				x.Release()
			}
		}
	})
	makers.Wait()
	close(done)
	others.Wait()
	r.make(factsOf("a"), "at last")
	if left := r.left(); len(left) != 1 || !r.Has(factsOf("a")) {
		t.Errorf("%q are left", left)
	}
}
