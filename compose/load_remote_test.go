// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
)

// fakeRemote has its files in a folder below each host's name.
type fakeRemote struct{ dir string }

func (f fakeRemote) file(address string) string {
	return filepath.Join(f.dir, strings.TrimPrefix(address, "oci://"), "compose.yaml")
}

func (f fakeRemote) Accept(address string) bool { return strings.HasPrefix(address, "oci://") }

func (f fakeRemote) Load(_ context.Context, address string) (string, error) {
	file := f.file(address)
	_, err := os.Stat(file)
	return file, err
}

func (f fakeRemote) Dir(address string) string { return filepath.Dir(f.file(address)) }

func TestLoadRemote(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("remote/app/compose.yaml", "include: [oci://db]\nservices:\n  web: {image: web, volumes: [\"./data:/data\"], env_file: vars.env}\n")
	write("remote/app/vars.env", "A=b\n")
	write("remote/db/compose.yaml", "services:\n  db: {image: db, extends: {file: oci://base, service: base}, volumes: [\"./db:/db\"]}\n")
	write("remote/base/compose.yaml", "services:\n  base: {image: base, labels: {from: base}}\n")
	write("here/compose.yaml", "include: [oci://db]\nservices:\n  local: {image: local}\n")
	remotes := []loader.ResourceLoader{fakeRemote{filepath.Join(dir, "remote")}}
	here := filepath.Join(dir, "here")
	load := func(o LoadOptions) (string, error) {
		t.Helper()
		o.WorkingDir, o.Remotes = here, remotes
		p, err := Load(t.Context(), o)
		if err != nil {
			return "", err
		}
		var all []string
		for _, name := range p.ServiceNames() {
			s := p.Services[name]
			line := name + " " + s.Labels["from"]
			for _, v := range s.Volumes {
				line += " " + strings.TrimPrefix(v.Source, dir)
			}
			all = append(all, line)
		}
		return p.Name + " in " + strings.TrimPrefix(p.WorkingDir, dir) + ": " + strings.Join(all, "; "), nil
	}
	got, err := load(LoadOptions{Files: []string{"oci://app"}})
	if want := "here in /remote/app: db base /remote/db/db; web  /remote/app/data"; err != nil || filepath.ToSlash(got) != want {
		t.Errorf("given: %q, %v; want %q", got, err, want)
	}
	got, err = load(LoadOptions{})
	if want := "here in /here: db base /remote/db/db; local "; err != nil || filepath.ToSlash(got) != want {
		t.Errorf("included: %q, %v; want %q", got, err, want)
	}
	got, err = load(LoadOptions{Files: []string{"oci://app"}, ProjectDir: dir})
	if err == nil || !strings.Contains(err.Error(), "vars.env") {
		t.Errorf("in another folder: %q, %v", got, err)
	}
	if _, err = load(LoadOptions{Files: []string{"https://example.com/compose.yaml"}}); err == nil || !strings.Contains(err.Error(), "nothing can be fetched") {
		t.Errorf("an address of no kind: %v", err)
	}
	if _, err = load(LoadOptions{Files: []string{"oci://nothing"}}); err == nil {
		t.Error("nothing there: no error")
	}
	if name, err := Name(t.Context(), LoadOptions{WorkingDir: here, Files: []string{"oci://app"}, Remotes: remotes}); err != nil || name != "here" {
		t.Errorf("name: %q, %v", name, err)
	}
}
