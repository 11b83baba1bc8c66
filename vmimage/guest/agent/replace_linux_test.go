// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const hereMounts = `20 1 254:1 / / ro - erofs /dev/vda ro
21 20 254:32 / /var rw,noatime - ext4 /dev/vdc rw
22 20 0:35 / /home/a\040b rw shared:5 - virtiofs share0 rw
`

func TestPlanReplacement(t *testing.T) {
	r, err := findReplacement(parseMounts(hereMounts), proto.Replace{Device: "0:30", Target: "/home/a b"})
	if err != nil {
		t.Fatal(err)
	}
	rw := []string{"rw", "relatime"}
	for name, c := range map[string]struct {
		mounts string
		want   []copied
		lost   string
	}{
		"a folder of it, read-only": {"40 1 0:50 / / rw,relatime - overlay o rw\n41 40 0:30 /sub /x ro,relatime master:7 - virtiofs share0 rw\n",
			[]copied{{"/home/a b/sub", "/x", []string{"ro", "relatime"}, true}}, ""},
		"a volume within": {"41 40 0:30 / /x rw,relatime - virtiofs share0 rw\n42 41 254:32 /lib/v /x/v rw,relatime - ext4 /dev/vdc rw\n43 40 254:32 /lib/w /w rw - ext4 /dev/vdc rw\n",
			[]copied{{"/home/a b", "/x", rw, false}, {"/var/lib/v", "/x/v", rw, false}}, ""},
		"a file system in memory within": {"41 40 0:30 / /x rw - virtiofs share0 rw\n42 41 0:60 / /x/tmp rw - tmpfs tmpfs rw\n", nil, "/x/tmp"},
		"done already":                   {"41 40 0:30 / /x rw - virtiofs share0 rw\n42 41 0:35 / /x rw - virtiofs share0 rw\n", nil, ""},
		"the number is another's now":    {"40 1 0:30 / / rw - overlay o rw\n41 40 0:30 / /x rw - virtiofs share1 rw\n", nil, ""},
	} {
		plan, lost := planReplacement(parseMounts(c.mounts), parseMounts(hereMounts), r)
		if !reflect.DeepEqual(plan, c.want) || lost != c.lost {
			t.Errorf("%s: %+v, lost %q; want %+v, %q", name, plan, lost, c.want, c.lost)
		}
	}
	if _, err := findReplacement(parseMounts(hereMounts), proto.Replace{Device: "0:30", Target: "/none"}); err == nil {
		t.Error("nothing is taken for a replacement")
	}
}

// TestReplaceMounts repairs a namespace that has a copy of a mount, and sees who uses the old one.
func TestReplaceMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts file systems: needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "share")
	mount := func(word string) {
		t.Helper()
		if err := unix.Mount("share9", target, "tmpfs", 0, ""); err != nil {
			t.Skipf("cannot mount: %v", err)
		}
		if err := os.WriteFile(filepath.Join(target, "word"), []byte(word), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	mount("old")
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	// The program says that it is in its namespace, waits to be told, and shows what it has.
	space := func(script string) (in *os.File, out *os.File, wait func()) {
		t.Helper()
		inR, in, err1 := os.Pipe()
		out, outW, err2 := os.Pipe()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", target)
		cmd.Dir = "/"
		cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Skipf("no mount namespace: %v", err)
		}
		_, _ = inR.Close(), outW.Close()
		return in, out, func() { _ = in.Close(); _ = cmd.Wait() }
	}
	read := func(f *os.File) string {
		b := make([]byte, 100)
		n, _ := f.Read(b)
		return string(b[:n])
	}
	in, out, end := space(`echo in; read x; cat "$1/word"; cat >/dev/null`)
	defer end()
	in2, out2, end2 := space(`cd "$1"; echo in; read x; cat "$1/word"; cat >/dev/null`)
	defer end2()
	if a, b := read(out), read(out2); a != "in\n" || b != "in\n" {
		t.Skipf("no mount namespace: %q, %q", a, b)
	}
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	device := mounts[slices.IndexFunc(mounts, func(m mountEntry) bool { return m.at == target })].device
	if users, err := usersOf(device); err != nil || len(users) != 1 {
		t.Errorf("users: %v, %v", users, err)
	}
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mount("new")
	done, err := ReplaceMounts(proto.Replace{Device: device, Target: target})
	if err != nil || len(done.Repaired) != 1 || len(done.Stale) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	for _, p := range []struct{ in, out *os.File }{{in, out}, {in2, out2}} {
		if _, err := p.in.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
		if got := read(p.out); got != "new" {
			t.Errorf("a program reads %q", got)
		}
	}
}
