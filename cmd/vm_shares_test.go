// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package cmd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/sharetest"
)

// sharesFail are cases that do not pass in a machine, by the kind of share, with the reason in docs/shares.md.
var sharesFail = map[string][]string{
	"virtiofs": {"O_TMPFILE, and a name for it later"},
}

// TestVMShares runs the suite of package sharetest in a machine, on a share of each kind, with this host's own programs. DEV_TEST_VM=all asks for it;
// DEV_TEST_SHARES_RECORD names a folder for the results that are published, DEV_TEST_SHARES_GROUP the only group of cases to run.
func TestVMShares(t *testing.T) {
	image := vmImage(t)
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("takes half an hour under emulation: set DEV_TEST_VM=all")
	}
	if os.Geteuid() != 0 {
		t.Skip("the cases are about owners, which only root's shares keep: run as root")
	}
	m := newSharesMachine(t, image)
	for _, kind := range []string{"fuse", "virtiofs"} {
		t.Run(kind, func(t *testing.T) {
			cases := "^TestCases$"
			if group := os.Getenv("DEV_TEST_SHARES_GROUP"); group != "" {
				cases += "/^" + group + "$"
			}
			out, err := m.inside(m.suite(kind, cases))
			t.Log(out)
			r, readErr := sharetest.ReadResults(filepath.Join(m.folder[kind], "results.json"))
			if readErr != nil {
				t.Fatalf("there are no results: %v, %v", readErr, err)
			}
			for _, f := range r.Failed {
				if !slices.Contains(sharesFail[kind], f.Name) {
					t.Errorf("%s: %s: %s", f.Group, f.Name, f.Why)
				}
			}
			if dir := os.Getenv("DEV_TEST_SHARES_RECORD"); dir != "" {
				if err := r.Update(filepath.Join(dir, kind+"-vm.json")); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// sharesMachine is a machine with a share of each kind, this host's programs, and the suite.
type sharesMachine struct {
	t             *testing.T
	home, program string
	folder        map[string]string
}

// sharesPatience bounds one command in the machine.
const sharesPatience = time.Hour

func newSharesMachine(t *testing.T, image string) *sharesMachine {
	t.Helper()
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	m := &sharesMachine{t: t, home: home, program: filepath.Join(home, "bin", "dev"), folder: map[string]string{"fuse": filepath.Join(home, "fuse"), "virtiofs": filepath.Join(home, "virtiofs")}}
	for _, dir := range m.folder {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	m.must("go", "build", "-o", filepath.Join(home, "bin")+"/", "./dev", "./dev-hostagent", "./dev-build")
	m.must("go", "test", "-c", "-o", filepath.Join(m.folder["fuse"], "sharetest"), "../vmimage/guest/share/sharetest")
	t.Cleanup(func() { m.must(m.program, "machine", "rm", "-f", "box") })
	m.must(m.program, "machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", "--sleep-after", "never",
		"--share", "/usr:/mnt/usr:ro", "--share", m.folder["fuse"]+":/mnt/fuse,type=fuse", "--share", m.folder["virtiofs"]+":/mnt/virtiofs,type=virtiofs", "box")
	if out, err := m.inside(`
		set -e
		mkdir -p /var/root && mount -o bind /var/root /var/root && cd /var/root
		mkdir -p usr proc dev tmp etc mnt/fuse mnt/virtiofs tools; chmod 1777 tmp
		for d in bin sbin lib lib64; do ln -sfn usr/$d $d; done
		cp /mnt/fuse/sharetest tools/
		echo 'root:x:0:0:root:/tmp:/bin/sh' >etc/passwd
		mount -o bind /mnt/usr usr; mount -t proc proc proc; mount -o bind /dev dev; mount -o bind /mnt/fuse mnt/fuse; mount -o bind /mnt/virtiofs mnt/virtiofs
		chmod 777 /mnt/fuse /mnt/virtiofs
		cat >/var/enter <<'END'
		for loader in /mnt/usr/lib*/ld-linux-*; do :; done
		for libraries in /mnt/usr/lib/*-linux-gnu; do break; done
		exec $loader --library-path $libraries /mnt/usr/sbin/chroot /var/root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp HOME=/tmp "$@"
END
		sh /var/enter true`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return m
}

// entered begins a command that runs where this host's programs are.
const entered = "exec sh /var/enter "

// suite is the command that runs tests of the suite in a share.
func (m *sharesMachine) suite(kind, tests string) string {
	return entered + "DEV_TEST_SHARES=vm /tools/sharetest -test.run '" + tests + "' -test.timeout 55m -dir /mnt/" + kind +
		" -way " + kind + "-vm -how 'in emulation' -results /mnt/" + kind + "/results.json"
}

// inside runs a script in the machine.
func (m *sharesMachine) inside(script string) (string, error) {
	return m.run(m.program, "machine", "ssh", "box", script)
}

func (m *sharesMachine) must(name string, args ...string) {
	m.t.Helper()
	if out, err := m.run(name, args...); err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (m *sharesMachine) run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sharesPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "DEV_HOME="+filepath.Join(m.home, "h"), "DOCKER_CONFIG="+filepath.Join(m.home, "docker"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
