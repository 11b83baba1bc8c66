// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// BusyboxImage imports a small image with a static busybox of the host under
// the name ref: every applet in /bin, PATH set, `sh` as command. An image that
// is there already is kept. The test is skipped when the host has no static
// busybox.
func BusyboxImage(t testing.TB, c *client.Client, ref string) {
	t.Helper()
	if _, err := c.ImageInspect(t.Context(), ref); err == nil {
		return
	}
	rootfs, err := busyboxRootfs()
	if err != nil {
		t.Skipf("needs a static busybox (package busybox-static): %v", err)
	}
	result, err := c.ImageImport(t.Context(), client.ImageImportSource{Source: bytes.NewReader(rootfs), SourceName: "-"}, ref,
		client.ImageImportOptions{Changes: []string{
			`ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
			`CMD ["sh"]`,
		}})
	if err != nil {
		t.Fatalf("import %s: %v", ref, err)
	}
	defer result.Close()
	if out, err := io.ReadAll(result); err != nil || bytes.Contains(out, []byte(`"errorDetail"`)) {
		t.Fatalf("import %s: %v: %s", ref, err, out)
	}
}

// busyboxRootfs is a root file system with nothing but busybox, as a tar.
func busyboxRootfs() ([]byte, error) {
	program, applets, err := findBusybox()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "root/", Typeflag: tar.TypeDir, Mode: 0o700}, {Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	files := map[string]string{
		"bin/busybox": string(program),
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":   "root:x:0:\nnogroup:x:65534:\n",
	}
	for _, name := range []string{"bin/busybox", "etc/passwd", "etc/group"} {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(files[name])), Mode: 0o755}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			return nil, err
		}
	}
	for _, applet := range applets {
		h := tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}
		if applet == "busybox" {
			continue
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// findBusybox reads a static busybox of the host and lists its applets.
func findBusybox() (program []byte, applets []string, err error) {
	err = fmt.Errorf("none is installed")
	for _, name := range []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox-static"} {
		if program, err = os.ReadFile(name); err != nil {
			continue
		}
		if !isStatic(program) {
			err = fmt.Errorf("%s is linked dynamically", name)
			continue
		}
		out, err := exec.Command(name, "--list").Output()
		return program, strings.Fields(string(out)), err
	}
	return nil, nil, err
}

func isStatic(program []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
