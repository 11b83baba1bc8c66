// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func TestDefaultSpecAndLockFit(t *testing.T) {
	s, err := ParseSpec("image.yaml", DefaultSpec)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseLock("image.lock.json", DefaultLock)
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range Arches {
		if err := l.check(s, arch); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
		if s.Kernel.Cmdline[arch] == "" {
			t.Errorf("%s: no kernel command line", arch)
		}
	}
}

func TestParseSpecRefuses(t *testing.T) {
	good := "schema: 1\nname: x\narchives: [{name: debian, suites: [a], components: [main]}]\nkernel: {package: k}\nstub: s\n"
	if _, err := ParseSpec("x", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":         "",
		"unknown field": good + "nonsense: 1\n",
		"new schema":    strings.Replace(good, "schema: 1", "schema: 2", 1),
		"path out":      good + "files: [{path: ../x, content: y}]\n",
		"absolute path": good + "folders: [/etc]\n",
		"bad mode":      good + "files: [{path: x, mode: '99'}]\n",
		"bad pattern":   good + "drop: ['[']\n",
		"suite path":    strings.Replace(good, "suites: [a]", "suites: [../../x]", 1),
	} {
		if _, err := ParseSpec("the-spec", []byte(text)); err == nil || !strings.Contains(err.Error(), "the-spec") {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
	}
}

func TestMirrors(t *testing.T) {
	host := fstest.MapFS{
		"etc/debian_version":                  {Data: []byte("12")},
		"etc/apt/sources.list":                {Data: []byte("# deb http://old.example/debian x main\ndeb [arch=amd64 signed-by=/k] http://one.example/debian/ bookworm main\n")},
		"etc/apt/sources.list.d/d.sources":    {Data: []byte("Types: deb\nURIs: http://two.example/debian http://two.example/debian-security\nSuites: x\n")},
		"etc/apt/sources.list.d/o.list":       {Data: []byte("deb https://vendor.example/apt stable main\ndeb cdrom:[x]/debian x main\n")},
		"etc/apt/sources.list.d/o.list.saved": {Data: []byte("deb http://saved.example/debian x main\n")},
	}
	m := Mirrors{Given: []string{"http://given.example"}, Host: host}
	got := strings.Join(m.URLs("debian", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), " ")
	want := "http://given.example/debian/ http://one.example/debian/ http://two.example/debian/ https://snapshot.debian.org/archive/debian/20260102T030405Z/"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := (Mirrors{Host: fstest.MapFS{}}).URLs("debian", time.Time{}); !slices.Equal(got, []string{"https://ftp.debian.org/debian/"}) {
		t.Errorf("a host that is no Debian: %q", got)
	}
}

func TestTreeMergesUsr(t *testing.T) {
	tr, err := newTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	if err := tr.text("bin/sh", 0o755, "#!"); err != nil {
		t.Fatal(err)
	}
	if err := tr.addSpec(&Spec{}); err != nil {
		t.Fatal(err)
	}
	if n := tr.nodes["bin"]; n == nil || n.link != "usr/bin" || tr.nodes["usr/bin/sh"] == nil {
		t.Errorf("bin is %+v", n)
	}
	if err := tr.text("usr/bin/sh/x", 0o644, ""); err == nil {
		t.Error("a file below a file was accepted")
	}
	if err := tr.put("usr/bin", &node{mode: fs.ModeSymlink}); err == nil {
		t.Error("a link replaced a folder")
	}
}

func TestModules(t *testing.T) {
	m := module{name: "ext4"}
	m.addInfo([]byte("license=GPL\x00depends=jbd2,mb-cache\x00softdep=pre: crc32c post: late\x00alias=fs-ext4\x00"))
	if got := moduleIndex([]*module{&m}, []string{"nvme"}, true); got != "module ext4 / jbd2,mb_cache crc32c late\nalias fs-ext4 ext4\nbuiltin nvme\n" {
		t.Errorf("index %q", got)
	}
	set := &moduleSet{byName: map[string]*module{"ext4": &m, "jbd2": {name: "jbd2"}, "crc32c_generic": {name: "crc32c_generic"}, "nft_a": {name: "nft_a"}}, byAlias: map[string][]string{"crc32c": {"crc32c_generic"}}, builtin: []string{"nvme"}}
	list, err := set.choose([]string{"ext4", "nft_*", "nvme"}, true)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range list {
		names = append(names, m.name)
	}
	if got := strings.Join(names, " "); got != "crc32c_generic ext4 jbd2 nft_a" {
		t.Errorf("chose %q", got)
	}
	if _, err := set.choose([]string{"nothing"}, true); err == nil {
		t.Error("a module that does not exist was chosen")
	}
}

// minimalStub is the smallest PE program with room for more sections.
func minimalStub() []byte {
	b := make([]byte, 1024)
	copy(b, "MZ")
	const header = 0x80
	le := binary.LittleEndian
	le.PutUint32(b[peOffsetAt:], header)
	copy(b[header:], "PE\x00\x00")
	le.PutUint16(b[header+4:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(b[header+sectionCountAt:], 1)
	le.PutUint16(b[header+optionalSizeAt:], 240)
	opt := b[header+optionalAt:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[32:], 4096) // section alignment
	le.PutUint32(opt[36:], 512)  // file alignment
	le.PutUint32(opt[60:], 1024) // headers
	le.PutUint32(opt[108:], 16)  // directories
	section := opt[240:]
	copy(section, ".text")
	le.PutUint32(section[8:], 10)
	le.PutUint32(section[12:], 4096)
	return b
}

func TestBuildUKI(t *testing.T) {
	kernel := bytes.Repeat([]byte("k"), 5000)
	image, err := buildUKI(minimalStub(), []ukiSection{{".cmdline", []byte("quiet")}, {".linux", kernel}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{".cmdline": []byte("quiet"), ".linux": kernel} {
		s := f.Section(name)
		if s == nil {
			t.Fatalf("no section %s", name)
		}
		got, err := s.Data()
		if err != nil || !bytes.Equal(got[:s.VirtualSize], want) || s.VirtualAddress%4096 != 0 {
			t.Errorf("section %s: %d bytes at %#x, %v", name, len(got), s.VirtualAddress, err)
		}
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < f.Section(".linux").VirtualAddress+5000 {
		t.Errorf("the image's size %#x leaves out a section", size)
	}
	var many []ukiSection
	for range 40 {
		many = append(many, ukiSection{".x", nil})
	}
	if _, err := buildUKI(minimalStub(), many); err == nil {
		t.Error("more sections than the header has room for were accepted")
	}
	if _, err := buildUKI([]byte("no program"), nil); err == nil {
		t.Error("nonsense was taken for a program")
	}
}

func TestInitrdIsReproducible(t *testing.T) {
	var out [2]bytes.Buffer
	for i := range out {
		tr, err := newTree(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer tr.close()
		for _, p := range []string{"init", "usr/lib/x", "usr/lib/y"} {
			if err := tr.text(p, 0o755, p); err != nil {
				t.Fatal(err)
			}
		}
		if err := tr.writeInitrd(&out[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out[0].Bytes(), out[1].Bytes()) || out[0].Len() == 0 {
		t.Error("the same tree gave different archives")
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"new schema": `{"schema":9}`, "no files": `{"schema":1,"arch":"amd64"}`, "nonsense": `x`,
		"a path": `{"schema":1,"arch":"amd64","files":[{"name":"../x","sha256":"` + strings.Repeat("0", 64) + `"}]}`,
	} {
		if _, err := ParseManifest("m", []byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCompileGuestNeedsTheSource(t *testing.T) {
	err := CompileGuest(t.Context(), os.TempDir(), "amd64", "x")
	if e, ok := errors.AsType[*NoGuestError](err); !ok || e.Hint() == "" {
		t.Errorf("got %v, want a NoGuestError", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add(DefaultSpec)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSpec("f", data)
		if err != nil {
			return
		}
		for _, file := range s.Files {
			if !insidePath(file.Path) {
				t.Errorf("path %q came through", file.Path)
			}
		}
	})
}

func FuzzParseLock(f *testing.F) {
	f.Add(DefaultLock)
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock("f", data)
		if err != nil {
			return
		}
		for _, list := range l.Packages {
			for _, p := range list {
				if p.validate() != nil {
					t.Errorf("package %+v came through", p)
				}
			}
		}
	})
}
