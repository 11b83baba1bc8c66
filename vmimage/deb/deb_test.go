// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

func TestCompareVersions(t *testing.T) {
	ordered := []string{"0~~", "0~", "0", "0+b1", "0.1", "1.0~rc1-1", "1.0-1", "1.0-1+deb12u1", "1.0-1+deb12u10", "1.0-2", "1.0a-1", "1.0+dfsg-1", "1:0.1"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := sign(CompareVersions(a, b)); got != sign(i-j) {
				t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, got, sign(i-j))
			}
		}
	}
	if CompareVersions("1.01", "1.1") != 0 || CompareVersions("0:1-0", "1-0") != 0 {
		t.Error("leading zeroes or a zero epoch make a difference")
	}
}

func sign(n int) int { return min(1, max(-1, n)) }

func TestResolve(t *testing.T) {
	index := `Package: app
Version: 1
Architecture: amd64
Depends: lib (>= 2), mail-agent | other, debconf
Filename: pool/app.deb
Size: 1
SHA256: ` + zeros + `

Package: lib
Version: 1
Architecture: amd64
Filename: pool/lib1.deb
Size: 1
SHA256: ` + zeros + `

Package: lib
Version: 2
Architecture: amd64
Depends: app
Filename: pool/lib2.deb
Size: 1
SHA256: ` + zeros + `

Package: exim
Version: 4
Architecture: all
Provides: mail-agent
Filename: pool/exim.deb
Size: 1
SHA256: ` + zeros + `

Package: foreign
Version: 4
Architecture: arm64
Filename: pool/f.deb
Size: 1
SHA256: ` + zeros + "\n"
	list, err := parsePackages(strings.NewReader(index), "debian")
	if err != nil {
		t.Fatal(err)
	}
	u := NewUniverse("amd64", list)
	got, err := u.Resolve([]string{"app"}, []string{"debconf"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got {
		names = append(names, p.Name+"="+p.Version)
	}
	if s := strings.Join(names, " "); s != "app=1 exim=4 lib=2" {
		t.Errorf("resolved %q", s)
	}
	for name, want := range map[string]string{"app": "debconf", "foreign": "foreign"} {
		var missing *UnsatisfiedError
		if _, err := u.Resolve([]string{name}, nil); !errors.As(err, &missing) || missing.Relation != want {
			t.Errorf("resolve %q without what it needs: %v", name, err)
		}
	}
}

var zeros = strings.Repeat("0", 64)

func TestVerifyRelease(t *testing.T) {
	good, other := newKey(t), newKey(t)
	text := "Suite: stable\nCodename: test\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n " + zeros + " 12 main/binary-amd64/Packages.gz\n"
	signed := clearSign(t, text, good)
	keys := Keyring{entities: openpgp.EntityList{good}}
	r, err := VerifyRelease("test", signed, keys)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := r.Index("main", "amd64"); err != nil || f.Size != 12 || f.ByHash != "main/binary-amd64/by-hash/SHA256/"+zeros {
		t.Errorf("index %+v, %v", f, err)
	}
	for name, bad := range map[string][]byte{
		"altered":      bytes.Replace(signed, []byte(" 12 "), []byte(" 13 "), 1),
		"unsigned":     []byte(text),
		"wrong key":    clearSign(t, text, other),
		"text after":   append(bytes.Clone(signed), "\nSuite: evil\n"...),
		"no signature": bytes.Replace(signed, []byte("-----BEGIN PGP SIGNATURE-----"), []byte("-----BEGIN PGP SIGNATURE"), 1),
	} {
		var unsigned *UnsignedError
		if _, err := VerifyRelease("test", bad, keys); !errors.As(err, &unsigned) {
			t.Errorf("%s: got %v, want an UnsignedError", name, err)
		}
	}
}

func newKey(t *testing.T) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("test", "", "t@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func clearSign(t *testing.T, text string, key *openpgp.Entity) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, key.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestParseIndexRefusesAlteredData(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprintf(w, "Package: app\nVersion: 1\nArchitecture: all\nFilename: pool/a.deb\nSize: 3\nSHA256: %s\n", zeros)
	w.Close()
	sum := sha256.Sum256(z.Bytes())
	f := IndexFile{Path: "main/binary-amd64/Packages.gz", SHA256: hex.EncodeToString(sum[:])}
	if list, err := ParseIndex(f, z.Bytes(), "debian"); err != nil || len(list) != 1 || list[0].Archive != "debian" {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := ParseIndex(f, append(z.Bytes(), 0), "debian"); err == nil || !strings.Contains(err.Error(), f.Path) {
		t.Errorf("altered index: got %v, want an error that names it", err)
	}
}

func TestParsePackageRefusesPathsOutside(t *testing.T) {
	for _, name := range []string{"../x.deb", "/x.deb", "a/../../x.deb", "pool/x.deb?y", ""} {
		s := Stanza{"package": "ab", "version": "1", "size": "1", "sha256": zeros, "filename": name}
		if _, err := parsePackage(s); err == nil {
			t.Errorf("filename %q was accepted", name)
		}
	}
}

// debOf makes a package of tar headers.
func debOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Size = 0
		if h.Typeflag == tar.TypeReg {
			h.Size = 5
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, "hello")
		}
	}
	w.Close()
	out := bytes.NewBufferString("!<arch>\n")
	member(out, "debian-binary", []byte("2.0\n"))
	member(out, "control.tar", []byte("odd"))
	member(out, "data.tar", data.Bytes())
	return out.Bytes()
}

func member(w *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
	w.Write(data)
	if len(data)%2 == 1 {
		w.WriteByte('\n')
	}
}

func TestReadFiles(t *testing.T) {
	data := debOf(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir},
		tar.Header{Name: "./usr/bin/x", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "./usr/bin/y", Typeflag: tar.TypeSymlink, Linkname: "../lib/y"},
		tar.Header{Name: "./usr/bin/z", Typeflag: tar.TypeLink, Linkname: "./usr/bin/x"},
	)
	var got []string
	err := ReadFiles("x.deb", bytes.NewReader(data), func(e Entry, r io.Reader) error {
		b, err := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%s %c %o %s%s", e.Path, e.Type, e.Mode, b, e.Link))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "usr/bin/x 0 4755 hello\nusr/bin/y 2 755 ../lib/y\nusr/bin/z 1 755 usr/bin/x"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

func TestReadFilesRefuses(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"path out":          {Name: "../etc/passwd", Typeflag: tar.TypeReg},
		"path out inside":   {Name: "a/../../etc/passwd", Typeflag: tar.TypeReg},
		"link out":          {Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"},
		"hard link out":     {Name: "a/b", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"},
		"a device":          {Name: "dev/sda", Typeflag: tar.TypeBlock},
		"link without goal": {Name: "a", Typeflag: tar.TypeSymlink},
	} {
		err := ReadFiles("evil.deb", bytes.NewReader(debOf(t, h)), func(Entry, io.Reader) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "evil.deb") {
			t.Errorf("%s: got %v, want an error that names the package", name, err)
		}
	}
	whole := debOf(t, tar.Header{Name: "x", Typeflag: tar.TypeReg})
	for _, n := range []int{4, 30, 70, 200, 300} {
		if err := ReadFiles("cut.deb", bytes.NewReader(whole[:n]), func(Entry, io.Reader) error { return nil }); err == nil {
			t.Errorf("a package cut off after %d bytes was accepted", n)
		}
	}
}

func TestLimitRefusesGiants(t *testing.T) {
	if _, err := readAll(strings.NewReader("12345"), 4); err == nil {
		t.Error("5 bytes passed a limit of 4")
	}
	if b, err := readAll(strings.NewReader("1234"), 4); err != nil || len(b) != 4 {
		t.Errorf("4 bytes did not pass a limit of 4: %v", err)
	}
}

func TestLicenses(t *testing.T) {
	got := Licenses([]byte("Format: https://x\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: MIT\n\nLicense: GPL-2+\n"))
	if strings.Join(got, ",") != "GPL-2+,MIT" {
		t.Errorf("got %q", got)
	}
}

func FuzzReadFiles(f *testing.F) {
	f.Add(debOf(f, tar.Header{Name: "x", Typeflag: tar.TypeReg}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = ReadFiles("f", bytes.NewReader(data), func(e Entry, r io.Reader) error {
			if strings.HasPrefix(e.Path, "/") || strings.Contains("/"+e.Path+"/", "/../") {
				t.Errorf("path %q came through", e.Path)
			}
			_, err := io.Copy(io.Discard, r)
			return err
		})
	})
}

func FuzzParsePackages(f *testing.F) {
	f.Add("Package: ab\nVersion: 1\nSize: 1\nFilename: a\nSHA256: " + zeros + "\nDepends: a (>= 1) | b, c\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, _ := parsePackages(strings.NewReader(text), "x")
		for _, p := range list {
			if !ValidFilename(p.Filename) || p.Size <= 0 {
				t.Errorf("package %+v came through", p)
			}
		}
	})
}
