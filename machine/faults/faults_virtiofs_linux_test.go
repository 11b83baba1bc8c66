// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needVirtiofsd skips where a virtiofs share cannot be served.
func needVirtiofsd(t *testing.T) {
	t.Helper()
	for _, name := range []string{"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"} {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
	t.Skip("virtiofsd is not installed")
}

// serve gives the machine, for the time of a test, a virtiofs share with a word in it.
func (l *lab) serve(t *testing.T) (folder string) {
	t.Helper()
	needVirtiofsd(t)
	folder = filepath.Join(l.home, "served")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "word"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.dev(t, "machine", "edit", "--share", folder+",type=virtiofs", "--restart", "box")
	t.Cleanup(func() { l.dev(t, "machine", "edit", "--unshare", folder, "--restart", "box") })
	l.up(t)
	return folder
}

// killVirtiofsd kills the server of a share while the machine is suspended, resumed, put to rest and woken: each time the machine is there afterwards with the folder.
func killVirtiofsd(t *testing.T, l *lab) {
	folder := l.serve(t)
	proof := l.sleeper(t)
	atMoments("virtiofsd", func(t *testing.T, l *lab, kill func(...string)) {
		reads := func() {
			t.Helper()
			proof()
			if got := l.run(t, "-v", folder+":/served", busybox, "cat", "/served/word"); got != "hello" {
				t.Errorf("a container reads %q", got)
			}
		}
		kill("suspend", "box")
		reads()
		l.dev(t, "machine", "suspend", "box")
		kill("resume", "box")
		reads()
		kill("stop", "box")
		reads()
		l.dev(t, "machine", "stop", "box")
		kill("start", "box")
		reads()
	})(t, l)
}

// virtiofsdDies kills the server of a share that containers use, and takes the share through a sleep.
func virtiofsdDies(t *testing.T, l *lab) {
	folder := l.serve(t)
	docker := func(args ...string) {
		t.Helper()
		if out, err := l.docker(t, args...); err != nil {
			t.Fatalf("docker %s: %v\n%s\nthe agent's log:\n%s", strings.Join(args, " "), err, out, tail(l.file("agent.log")))
		}
	}
	t.Cleanup(func() { _, _ = l.docker(t, "rm", "-f", "reads", "stands") })
	docker("run", "-d", "--name", "reads", "-v", folder+":/served", "-v", "within:/served/within", busybox, "sleep", "100000")
	docker("run", "-d", "--name", "stands", "-v", folder+":/served", "-w", "/served", busybox, "sleep", "100000")
	reads := func(container string) func() bool {
		return func() bool {
			out, err := l.docker(t, "exec", container, "sh", "-c", "cat /served/word && echo there > /served/$0 && touch /served/within/x", container)
			return err == nil && out == "hello"
		}
	}
	await(t, "the containers have the folder", func() bool { return reads("reads")() && reads("stands")() })

	l.kill9(t, "virtiofsd")
	await(t, "the status names the container that has to be started again", func() bool {
		return slices.ContainsFunc(l.status(t).Problems, func(p string) bool { return strings.HasSuffix(p, ": stands") })
	})
	if !reads("reads")() {
		t.Errorf("a container that runs has not got the folder back\nthe agent's log:\n%s", tail(l.file("agent.log")))
	}
	if got := l.run(t, "-v", folder+":/served", busybox, "cat", "/served/word"); got != "hello" {
		t.Errorf("a new container reads %q", got)
	}
	docker("restart", "-t", "0", "stands")
	if !reads("stands")() {
		t.Error("the container that was started again does not have the folder")
	}
	l.well(t)

	l.fails(t, []string{"machine", "suspend", "box"}, "stands", folder)
	docker("rm", "-f", "stands")
	l.dev(t, "machine", "suspend", "box")
	if left := l.processes(t, "virtiofsd"); len(left) > 0 {
		t.Errorf("%v is left while the machine sleeps", left)
	}
	l.dev(t, "machine", "resume", "box")
	await(t, "a container that runs has the folder after a sleep", reads("reads"))
	docker("rm", "-f", "reads")
	l.dev(t, "machine", "stop", "box")
	l.dev(t, "machine", "start", "box") // from memory
	if got := l.guest(t, "cat "+filepath.Join(folder, "word")); got != "hello" {
		t.Errorf("a machine that was started from its memory reads %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(folder, "reads")); err != nil || string(data) != "there\n" {
		t.Errorf("on the host: %q, %v", data, err)
	}
}
