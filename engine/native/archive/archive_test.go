// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// entry is a file of an archive under test.
type entry struct {
	name string
	data string
	kind byte // tar type flag; 0 is a regular file
	link string
}

// manifestOf lists entries as they are.
func manifestOf(entries ...entry) Manifest {
	m := Manifest{Schema: Schema, Version: "1.2.3", OS: "linux", Arch: "amd64", Components: []Component{{Name: "dockerd", Version: "1"}}}
	for _, e := range entries {
		sum := sha256.Sum256([]byte(e.data))
		m.Files = append(m.Files, File{Path: e.name, Mode: "0755", Size: int64(len(e.data)), SHA256: hex.EncodeToString(sum[:])})
	}
	return m
}

// pack makes an archive.
func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.data)), Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag, h.Size = e.kind, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == 0 {
			if _, err := io.WriteString(w, e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// head is the manifest as an entry.
func head(t testing.TB, m Manifest) entry {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return entry{name: ManifestName, data: string(data)}
}

func unpack(data []byte, dir string) (Manifest, error) {
	r, err := NewReader("b.tar.zst", bytes.NewReader(data))
	if err != nil {
		return Manifest{}, err
	}
	defer r.Close()
	return r.Manifest(), r.Unpack(dir)
}

var good = []entry{{name: "bin/dockerd", data: "program"}, {name: "licenses/moby/LICENSE", data: "free"}, {name: "empty"}}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	m, err := unpack(pack(t, append([]entry{head(t, manifestOf(good...)), {name: "bin/", kind: tar.TypeDir}}, good...)...), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range good {
		data, err := os.ReadFile(filepath.Join(dir, e.name))
		if err != nil || string(data) != e.data {
			t.Errorf("%s = %q, %v", e.name, data, err)
		}
	}
	if !strings.HasPrefix(m.ID(), "1.2.3-") || len(m.ID()) != len("1.2.3-")+12 {
		t.Errorf("ID = %q", m.ID())
	}
	again, err := Check(dir)
	if err != nil || again.ID() != m.ID() {
		t.Errorf("Check = %v, %v", again.ID(), err)
	}
}

func TestRefused(t *testing.T) {
	m := manifestOf(good...)
	with := func(change func(*Manifest)) Manifest {
		c := m
		c.Files = append([]File{}, m.Files...)
		change(&c)
		return c
	}
	all := func(m Manifest, entries ...entry) []byte { return pack(t, append([]entry{head(t, m)}, entries...)...) }
	whole := all(m, good...)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                {nil, "read first entry"},
		"no zstd":              {[]byte("PK\x03\x04 something else"), "magic number"},
		"cut in the middle":    {whole[:len(whole)/2], ""},
		"one byte less":        {whole[:len(whole)-1], ""},
		"one bit altered":      {flipped, ""},
		"no manifest":          {pack(t, good...), `first entry is "bin/dockerd"`},
		"manifest is no JSON":  {pack(t, entry{name: ManifestName, data: "{"}), "parse manifest"},
		"file missing":         {all(m, good[:2]...), `file "empty" is in the manifest but not in the archive`},
		"file not in manifest": {all(m, append(good, entry{name: "bin/more"})...), `entry "bin/more" is not in the manifest`},
		"file twice":           {all(m, append(good, good[0])...), "is there twice"},
		"other content":        {all(m, entry{name: "bin/dockerd", data: "Program"}, good[1], good[2]), `file "bin/dockerd" has SHA-256`},
		"other size":           {all(m, entry{name: "bin/dockerd", data: "programs"}, good[1], good[2]), "has 8 bytes, the manifest says 7"},
		"symbolic link":        {all(m, entry{name: "bin/dockerd", kind: tar.TypeSymlink, link: "/bin/sh"}, good[1], good[2]), "not a regular file"},
		"hard link":            {all(m, entry{name: "bin/dockerd", kind: tar.TypeLink, link: "empty"}, good[1], good[2]), "not a regular file"},
		"schema of tomorrow":   {all(with(func(m *Manifest) { m.Schema = 2 }), good...), "schema 2 is not supported"},
		"version as a path":    {all(with(func(m *Manifest) { m.Version = "../1" }), good...), `version "../1" is not valid`},
		"no files":             {all(with(func(m *Manifest) { m.Files = nil })), "0 files"},
		"path out of folder":   {all(with(func(m *Manifest) { m.Files[0].Path = "../x" }), good...), "not a clean relative one"},
		"absolute path":        {all(with(func(m *Manifest) { m.Files[0].Path = "/etc/x" }), good...), "not a clean relative one"},
		"path not clean":       {all(with(func(m *Manifest) { m.Files[0].Path = "bin//x" }), good...), "not a clean relative one"},
		"path with backslash":  {all(with(func(m *Manifest) { m.Files[0].Path = `bin\x` }), good...), "not a clean relative one"},
		"path of the stamp":    {all(with(func(m *Manifest) { m.Files[0].Path = stampName }), good...), "name is reserved"},
		"path of the manifest": {all(with(func(m *Manifest) { m.Files[0].Path = ManifestName }), good...), "name is reserved"},
		"path listed twice":    {all(with(func(m *Manifest) { m.Files[1].Path = "bin/dockerd" }), good...), "listed twice"},
		"file and folder":      {all(with(func(m *Manifest) { m.Files[1].Path = "bin" }), good...), `file "bin" is also the folder of "bin/dockerd"`},
		"setuid":               {all(with(func(m *Manifest) { m.Files[0].Mode = "4755" }), good...), `mode "4755"`},
		"mode that is none":    {all(with(func(m *Manifest) { m.Files[0].Mode = "rwx" }), good...), `mode "rwx"`},
		"negative size":        {all(with(func(m *Manifest) { m.Files[0].Size = -1 }), good...), "size -1"},
		"too large together":   {all(with(func(m *Manifest) { m.Files[0].Size, m.Files[1].Size = maxTotal, maxTotal }), good...), "larger than"},
		"digest that is none":  {all(with(func(m *Manifest) { m.Files[0].SHA256 = "abc" }), good...), "sha256"},
		"digest in upper case": {all(with(func(m *Manifest) { m.Files[0].SHA256 = strings.ToUpper(m.Files[0].SHA256) }), good...), "sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(tt.data, t.TempDir())
			var damaged *DamagedError
			if !errors.As(err, &damaged) || damaged.Name != "b.tar.zst" {
				t.Fatalf("error = %v, want a DamagedError that names the bundle", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestUnwritable: a full or read-only disk is not the bundle's fault.
func TestUnwritable(t *testing.T) {
	_, err := unpack(pack(t, append([]entry{head(t, manifestOf(good...))}, good...)...), filepath.Join(t.TempDir(), "none\x00"))
	var damaged *DamagedError
	var path *fs.PathError
	if errors.As(err, &damaged) || !errors.As(err, &path) {
		t.Errorf("error = %v", err)
	}
}

func TestCheckNotices(t *testing.T) {
	for name, alter := range map[string]func(file string) error{
		"content of another length":  func(f string) error { return os.WriteFile(f, []byte("programs"), 0o755) },
		"content of the same length": func(f string) error { return os.WriteFile(f, []byte("Program"), 0o755) },
		"time":                       func(f string) error { return os.Chtimes(f, time.Now(), time.Now().Add(time.Hour)) },
		"mode":                       func(f string) error { return os.Chmod(f, 0o600) },
		"removal":                    os.Remove,
		"link": func(f string) error {
			return errors.Join(os.Rename(f, f+".old"), os.Symlink(f+".old", f))
		},
		"stamp":    func(f string) error { return os.WriteFile(filepath.Join(f, "../..", stampName), []byte("{}"), 0o644) },
		"manifest": func(f string) error { return os.Remove(filepath.Join(f, "../..", ManifestName)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := unpack(pack(t, append([]entry{head(t, manifestOf(good...))}, good...)...), dir); err != nil {
				t.Fatal(err)
			}
			if err := alter(filepath.Join(dir, "bin", "dockerd")); err != nil {
				t.Fatal(err)
			}
			var damaged *DamagedError
			if _, err := Check(dir); !errors.As(err, &damaged) || damaged.Name != dir {
				t.Errorf("Check = %v", err)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	data, err := json.Marshal(manifestOf(good...))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":1,"version":"1","files":[{"path":"a/../b","mode":"0755"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if !filepath.IsLocal(filepath.FromSlash(file.Path)) || file.FileMode()&^0o777 != 0 || file.FileMode() == 0 {
				t.Errorf("accepted %+v", file)
			}
		}
		if strings.ContainsAny(m.ID(), "/\\") || len(m.ID()) < 14 {
			t.Errorf("ID = %q", m.ID())
		}
	})
}

// FuzzUnpack feeds tar streams, which the fuzzer can shape, compressed: nothing
// outside the folder may appear, and what is accepted is what was listed.
func FuzzUnpack(f *testing.F) {
	raw := func(entries ...entry) []byte {
		dec, err := zstd.NewReader(bytes.NewReader(pack(f, entries...)))
		if err != nil {
			f.Fatal(err)
		}
		defer dec.Close()
		data, err := io.ReadAll(dec)
		if err != nil {
			f.Fatal(err)
		}
		return data
	}
	f.Add(raw(append([]entry{head(f, manifestOf(good...))}, good...)...), true)
	f.Add(raw(head(f, manifestOf(good...)), entry{name: "../x", data: "y"}), true)
	f.Add([]byte("garbage"), false)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, compressed bool) {
		if compressed {
			data = enc.EncodeAll(data, nil)
		}
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader("b", bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		r.volatile = true
		m := r.Manifest()
		err = r.Unpack(dir)
		if entries, readErr := os.ReadDir(parent); readErr != nil || len(entries) != 1 {
			t.Fatalf("wrote outside its folder: %v, %v", entries, readErr)
		}
		if err != nil {
			return
		}
		if again, err := Check(dir); err != nil || again.ID() != m.ID() {
			t.Errorf("accepted, but Check = %v", err)
		}
	})
}
