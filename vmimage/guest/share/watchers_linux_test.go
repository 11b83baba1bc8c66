// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// watcherFolder tells this program that it is TestWatcherProgram's other half.
const watcherFolder = "DEV_TEST_WATCHER_FOLDER"

// TestWatcherProgram is no test but the Go program that TestWatchersReload runs: it prints a file's text at the start and each time it is changed.
func TestWatcherProgram(t *testing.T) {
	folder := os.Getenv(watcherFolder)
	if folder == "" {
		t.Skip("it is run by TestWatchersReload")
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(folder); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "app.js")
	load := func() {
		if text, err := os.ReadFile(file); err == nil { // between two steps of a save there is none
			fmt.Println("loaded", strings.TrimSpace(string(text)))
		}
	}
	load()
	for {
		select {
		case e := <-w.Events:
			if e.Name == file {
				load()
			}
		case err := <-w.Errors:
			t.Fatal(err)
		}
	}
}

// program starts a program that watches the share from where a container is: behind a bind mount in a mount namespace of its own. It returns the
// lines that it prints.
func (p *pair) program(env []string, args ...string) <-chan string {
	p.t.Helper()
	bind := filepath.Join(p.t.TempDir(), "app")
	if err := os.Mkdir(bind, 0o755); err != nil {
		p.t.Fatal(err)
	}
	script := `mount --make-rprivate / && mount --bind "$0" "$1" && shift && exec "$@"`
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "FOLDER", bind)
	}
	cmd := exec.Command("sh", append([]string{"-c", script, p.target, bind}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	for i := range cmd.Env {
		cmd.Env[i] = strings.ReplaceAll(cmd.Env[i], "=FOLDER", "="+bind)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	return lines
}

// await reads lines up to one.
func await(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	var seen []string
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the program ended before it said %q: %q", want, seen)
			}
			if line == "unsupported" {
				t.Skip("this version of the program cannot do that")
			}
			seen = append(seen, line)
			if line == want {
				return
			}
		case <-deadline:
			t.Fatalf("the program did not say %q: %q", want, seen)
		}
	}
}

// Programs that reload what changes do so for what is changed on the host, in all the ways that files are saved.
func TestWatchersReload(t *testing.T) {
	watchers := []struct {
		name string
		// saves is how many of the ways to save a file it notices on any file system; 0: all.
		saves int
		need  []string
		env   []string
		args  []string
	}{
		{name: "go", env: []string{watcherFolder + "=FOLDER"}, args: []string{os.Args[0], "-test.run=^TestWatcherProgram$"}},
		{name: "python", need: []string{"python3"}, args: []string{"python3", "testdata/watch.py", "FOLDER", "app.js"}},
		{name: "node", need: []string{"node"}, args: []string{"node", "testdata/watch.js", "FOLDER", "app.js"}},
		{name: "node, recursive", saves: 2, need: []string{"node"}, args: []string{"node", "testdata/watch.js", "FOLDER", "app.js", "recursive"}},
		{name: "node --watch", saves: 2, need: []string{"node"}, args: []string{"node", "--watch", "FOLDER/app.js"}},
	}
	text := func(version string) []byte { return fmt.Appendf(nil, "console.log('loaded %s')\n", version) }
	for _, w := range watchers {
		t.Run(w.name, func(t *testing.T) {
			for _, name := range w.need {
				if _, err := exec.LookPath(name); err != nil {
					t.Skipf("it needs %s", name)
				}
			}
			p := followed(t, nil)
			file := p.host("app.js")
			said := func(version string) string { return "loaded " + strings.TrimSpace(string(text(version))) }
			if w.name == "node --watch" { // it runs the file
				said = func(version string) string { return "loaded " + version }
			}
			if err := os.WriteFile(file, text("1"), 0o644); err != nil {
				t.Fatal(err)
			}
			lines := p.program(w.env, w.args...)
			await(t, lines, said("1"))
			for i, save := range saves {
				if w.saves > 0 && i >= w.saves {
					break
				}
				version := fmt.Sprint(i + 2)
				if err := save(file, text(version)); err != nil {
					t.Fatal(err)
				}
				await(t, lines, said(version))
			}
		})
	}
}

// saves are ways to save a file: over itself, by renaming another over it, after moving the old one aside, and after deleting it.
var saves = []func(file string, text []byte) error{
	func(file string, text []byte) error { return os.WriteFile(file, text, 0o644) },
	func(file string, text []byte) error {
		return errors.Join(os.WriteFile(file+".tmp", text, 0o644), os.Rename(file+".tmp", file))
	},
	func(file string, text []byte) error {
		return errors.Join(os.Rename(file, file+"~"), os.WriteFile(file, text, 0o644), os.Remove(file+"~"))
	},
	func(file string, text []byte) error {
		return errors.Join(os.Remove(file), os.WriteFile(file, text, 0o644))
	},
	func(file string, text []byte) error { return os.WriteFile(file, text, 0o644) },
}
