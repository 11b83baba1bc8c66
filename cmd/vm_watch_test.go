// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestVMWatch has file watchers of Go, Python and node in a machine see what is saved on the host, and measures how soon they see it after git has checked out a
// branch of 50,000 files there. DEV_TEST_VM=all asks for it; DEV_TEST_CHECKOUT is another number of files. It asserts no times.
func TestVMWatch(t *testing.T) {
	image := vmImage(t)
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("takes ten minutes under emulation: set DEV_TEST_VM=all")
	}
	m := newSharesMachine(t, image)
	m.must("go", "test", "-c", "-o", filepath.Join(m.folder["fuse"], "watch"), "../vmimage/guest/share")
	programs := "../vmimage/guest/share/testdata"
	m.must("cp", filepath.Join(programs, "watch.py"), filepath.Join(programs, "watch.js"), m.folder["fuse"])
	if out, err := m.inside("cp /mnt/fuse/watch* /var/root/tools/"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, c := range map[string]struct {
		program string
		saves   int // it notices so many of the ways to save
	}{
		"go":              {program: goWatcher},
		"python":          {program: "python3 /tools/watch.py {} app.js"},
		"node":            {program: "node /tools/watch.js {} app.js"},
		"node, recursive": {program: "node /tools/watch.js {} app.js recursive", saves: 2},
		"node --watch":    {program: "node --watch {}/app.js", saves: 2},
	} {
		t.Run(name, func(t *testing.T) {
			needed, _, _ := strings.Cut(c.program, " ")
			if _, err := m.inside(entered + "sh -c 'command -v " + needed + "'"); err != nil {
				t.Skipf("it needs %s in /usr", needed)
			}
			dir := m.sub(t)
			w := m.watch(t, filepath.Base(dir), c.program)
			w.runs = name == "node --watch"
			w.await(w.save(t, writeOver))
			for i, save := range saves {
				if c.saves > 0 && i >= c.saves {
					break
				}
				text := w.save(t, save)
				at := time.Now()
				w.await(text)
				t.Logf("save %d was seen after %v", i+1, time.Since(at).Round(time.Millisecond))
			}
		})
	}
	t.Run("checkout", func(t *testing.T) { m.checkout(t) })
}

// goWatcher is TestWatcherProgram of package share.
const goWatcher = "env DEV_TEST_WATCHER_FOLDER={} /tools/watch -test.run ^TestWatcherProgram$"

// checkout measures events during and after a checkout.
func (m *sharesMachine) checkout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("it needs git")
	}
	files := 50_000
	if n, err := strconv.Atoi(os.Getenv("DEV_TEST_CHECKOUT")); err == nil {
		files = n
	}
	dir := m.sub(t)
	m.must("sh", "-c", branches, dir, strconv.Itoa(files))
	const sum = "find . -path ./.git -prune -o -name app.js -o -type f -print | wc -l; cat d[0-9]/f* | cksum"
	inMachine := entered + "env LC_ALL=C sh -c 'cd /mnt/fuse/" + filepath.Base(dir) + " && " + sum + "'"
	before, err := m.inside(inMachine) // it knows every file, and what is in some
	if err != nil {
		t.Fatalf("%v\n%s", err, before)
	}
	root, deep := m.watch(t, filepath.Base(dir), goWatcher), m.watch(t, filepath.Base(dir)+"/d0", goWatcher)
	for _, w := range []*watched{root, deep} {
		w.await(w.save(t, writeOver))
	}
	began := time.Now()
	m.must("git", "-C", dir, "checkout", "-q", "two")
	took := time.Since(began)
	text := root.save(t, writeOver)
	began = time.Now()
	root.await(text)
	t.Logf("git checkout of %d files took %v; what was saved then was seen after %v", files, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	var later []time.Duration
	for i := range 20 {
		w := []*watched{root, deep}[i%2]
		text := w.save(t, writeOver)
		began := time.Now()
		w.await(text)
		later = append(later, time.Since(began).Round(time.Millisecond))
	}
	slices.Sort(later)
	t.Logf("afterwards within %v, half of them within %v", later[len(later)-1], later[len(later)/2])
	have, err := m.inside(inMachine)
	due, dueErr := m.run("env", "LC_ALL=C", "sh", "-c", "cd "+dir+" && "+sum)
	if err := errors.Join(err, dueErr); err != nil || have != due || have == before {
		t.Errorf("after the checkout the machine has %q, this host %q, before it was %q: %v", have, due, before, err)
	}
}

// branches makes two branches of as many files as the argument says, with the same names and other contents, and checks out one.
const branches = `
	set -e; cd "$0"
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
	git init -q -b one; git config gc.auto 0
	for branch in one two; do
		awk -v n="$1" -v b=$branch 'BEGIN {
			print "commit refs/heads/" b "\ncommitter t <t@example.com> 1700000000 +0000\ndata 0"
			for (i = 0; i < n; i++) { text = b " " i; print "M 644 inline d" i % 100 "/f" i "\ndata " length(text) "\n" text }
		}' | git fast-import --quiet
	done
	git checkout -q one`

// sub makes a folder for one test in the share.
func (m *sharesMachine) sub(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(m.folder["fuse"], "watch-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// watched is a program in the machine that prints a file's text each time it sees that it was changed.
type watched struct {
	t     *testing.T
	file  string
	n     int
	runs  bool // the program runs the file
	lines <-chan string
}

// watch starts a program that watches a folder of the share, from behind a bind mount in a mount namespace of its own, as a container has it.
func (m *sharesMachine) watch(t *testing.T, folder, program string) *watched {
	t.Helper()
	w := &watched{t: t, file: filepath.Join(m.folder["fuse"], folder, "app.js")}
	if err := os.WriteFile(w.file, []byte("console.log('loaded 0')\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := "/tmp/app"
	inner := "mkdir -p " + at + " && mount -o bind /mnt/fuse/" + folder + " " + at + " && exec " + strings.ReplaceAll(program, "{}", at)
	script := entered + "unshare -m sh -c '" + inner + "'"
	cmd := exec.Command(m.program, "machine", "ssh", "box", script)
	cmd.Env = append(os.Environ(), "DEV_HOME="+filepath.Join(m.home, "h"))
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan string, 1000)
	w.lines = lines
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	w.await("loaded") // whatever it says of the first text
	return w
}

// save saves the file with a new text, in one of the ways, and returns what the program is to say of it.
func (w *watched) save(t *testing.T, how func(file string, text []byte) error) string {
	t.Helper()
	w.n++
	text := fmt.Sprintf("console.log('loaded %d')", w.n)
	if err := how(w.file, []byte(text+"\n")); err != nil {
		t.Fatal(err)
	}
	if w.runs {
		return fmt.Sprintf("loaded %d", w.n)
	}
	return "loaded " + text
}

// await reads lines up to one that begins so.
func (w *watched) await(prefix string) {
	w.t.Helper()
	deadline := time.After(vmPatience)
	var seen []string
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				w.t.Fatalf("the program ended before it said %q: %q", prefix, seen)
			}
			if line == "unsupported" {
				w.t.Skip("this version of the program cannot do that")
			}
			if seen = append(seen, line); strings.HasPrefix(line, prefix) {
				return
			}
		case <-deadline:
			w.t.Fatalf("the program did not say %q: %q", prefix, seen)
		}
	}
}

func writeOver(file string, text []byte) error { return os.WriteFile(file, text, 0o644) }

// saves are ways to save a file: over itself, by renaming another over it, after moving the old one aside, and after deleting it.
var saves = []func(file string, text []byte) error{
	writeOver,
	func(file string, text []byte) error {
		return errors.Join(writeOver(file+".tmp", text), os.Rename(file+".tmp", file))
	},
	func(file string, text []byte) error {
		return errors.Join(os.Rename(file, file+"~"), writeOver(file, text), os.Remove(file+"~"))
	},
	func(file string, text []byte) error { return errors.Join(os.Remove(file), writeOver(file, text)) },
	writeOver,
}
