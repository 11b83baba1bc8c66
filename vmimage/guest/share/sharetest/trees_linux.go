// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package sharetest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// furnish makes one of each that a tree of files may have.
func furnish(dir string) error {
	old := time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)
	in := func(name string) string { return filepath.Join(dir, name) }
	sparse := func() error {
		return withFile(in("sparse"), func(h *os.File) error {
			_, err := h.WriteAt([]byte("end"), 4<<20)
			return err
		})
	}
	linked := func(name, to string) error { // rsync compares the times of links and fifos by the second
		times := []unix.Timespec{{Sec: old.Unix()}, {Sec: old.Unix()}}
		return errors.Join(os.Symlink(to, in(name)), unix.UtimesNanoAt(unix.AT_FDCWD, in(name), times, unix.AT_SYMLINK_NOFOLLOW))
	}
	return errors.Join(os.MkdirAll(in("sub/deep er"), 0o755), write(in("plain"), "plain"), write(in("sub/script"), "#!/bin/sh\nexit 0\n"), os.Chmod(in("sub/script"), 0o755),
		write(in("sub/deep er/a\nb"), "newline"), write(in("sub/\xff\xfe"), "no UTF-8"), write(in("-rf"), "dash"), write(in(strings.Repeat("x", 255)), "long"), touch(in("empty")),
		linked("link", "sub/script"), linked("broken", "/nowhere/at all"), os.Link(in("plain"), in("sub/hard")), sparse(), unix.Mkfifo(in("fifo"), 0o600),
		write(in("attributes"), "x"), unix.Setxattr(in("attributes"), "user.test", []byte("value\x00binary"), 0), unix.Setxattr(in("sub"), "user.folder", []byte("y"), 0),
		write(in("private"), "x"), os.Chmod(in("private"), 0o600), os.Mkdir(in("closed"), 0o700), os.Chown(in("private"), 1234, 5678), write(in("setuid"), "x"), os.Chmod(in("setuid"), 0o755|os.ModeSetuid),
		os.Chtimes(in("plain"), old, old), os.Chtimes(in("fifo"), old, old), os.Chtimes(in("sub/deep er"), old, old), os.Chtimes(in("closed"), old, old), os.Chtimes(in("sub"), old, old))
}

// describe tells all of a file that copies must keep.
func describe(path string, names map[uint64]string) (string, error) {
	st, err := stat(path)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
		if st.Nlink > 1 {
			line += " the same file as " + names[st.Ino]
		}
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		return line + " to " + to, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		for _, name := range []string{"user.test", "user.folder"} {
			buf := make([]byte, 100)
			if n, err := unix.Getxattr(path, name, buf); err == nil {
				line += fmt.Sprintf(" %s=%q", name, buf[:n])
			}
		}
	}
	return line, nil
}

// tree describes all below a folder by their paths.
func tree(dir string) (map[string]string, error) {
	all, names := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, st := path[len(dir)+1:], unix.Stat_t{}
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if names[st.Ino] == "" {
			names[st.Ino] = rel
		}
		all[rel], err = describe(path, names)
		return err
	})
	return all, err
}

// sameTrees compares all that copies must keep.
func sameTrees(a, b string) error {
	was, err := tree(a)
	if err != nil {
		return err
	}
	is, err := tree(b)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] != was[name] {
			return fmt.Errorf("%q is %q instead of %q", short([]byte(name)), is[name], was[name])
		}
	}
	if len(is) != len(was) {
		return fmt.Errorf("there are %d files instead of %d", len(is), len(was))
	}
	return nil
}

// holes says that a file takes less room than its size.
func holes(path string) error {
	st, err := stat(path)
	if err == nil && st.Blocks*512 > st.Size/2 {
		err = fmt.Errorf("%d bytes of %d are allocated", st.Blocks*512, st.Size)
	}
	return err
}

func tarThereAndBack(dir string) error {
	if out, err := exec.Command("tar", "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU")) {
		return Missing("GNU tar")
	}
	const copies = `mkdir "$2"; tar --xattrs --xattrs-include='user.*' -C "$1" -Scf archive.tar . ; tar --xattrs --xattrs-include='user.*' -C "$2" -Sxpf archive.tar`
	return steps(func() error { return errors.Join(os.Mkdir(dir+"/a", 0o755), furnish(dir+"/a")) }, func() error { return runs(dir, copies, "a", "b") }, func() error { return sameTrees(dir+"/a", dir+"/b") },
		func() error { return holes(dir + "/b/sparse") }, func() error { return runs(dir, `tar -C b --xattrs --compare -f archive.tar`) })
}

func copyAll(dir string) error {
	if runs(dir, `touch f; cp --reflink=auto f g`) != nil {
		return Missing("GNU cp")
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	return steps(func() error {
		return errors.Join(os.Mkdir(dir+"/a", 0o755), furnish(dir+"/a"), os.WriteFile(dir+"/large", large, 0o644))
	},
		func() error {
			return runs(dir, `cp -a --reflink=auto a b; cp --reflink=auto large copy; cmp large copy; cp -a --sparse=always a c`)
		},
		func() error { return sameTrees(dir+"/a", dir+"/b") }, func() error { return sameTrees(dir+"/a", dir+"/c") }, func() error { return holes(dir + "/c/sparse") },
		func() error { return runs(dir, `mv b moved; cp -a moved/. b2; rm -rf moved`) }, func() error { return sameTrees(dir+"/a", dir+"/b2") })
}

// packageFiles are in a package of installPackages and npmInstall.
const packageFiles = 100

// packageFile is a file of a package: a program, which may be run, its description, or one of many modules.
func packageFile(p, f int) (name, text string, mode fs.FileMode) {
	switch f {
	case 0:
		return "cli.js", fmt.Sprintf("#!/usr/bin/env node\nconsole.log('package %d', require('./lib/m2.js'))\n", p), 0o755
	case 1:
		return "package.json", fmt.Sprintf(`{"name": "p%d", "version": "1.0.0", "bin": {"p%d": "cli.js"}, "main": "lib/m2.js"}`, p, p), 0o644
	}
	return fmt.Sprintf("lib/m%d.js", f), fmt.Sprintf("module.exports = %d // %s\n", f, strings.Repeat("-", f*20)), 0o644
}

// installPackages does what installers of packages do: unpack into a folder of a temporary name, move it, link its program.
func installPackages(dir string, packages int) error {
	modules := dir + "/node_modules"
	if err := os.MkdirAll(modules+"/.bin", 0o755); err != nil {
		return err
	}
	for p := range packages {
		temporary := fmt.Sprintf("%s/.p%d-x7Fq", modules, p)
		if err := os.MkdirAll(temporary+"/lib", 0o755); err != nil {
			return err
		}
		for f := range packageFiles {
			name, text, mode := packageFile(p, f)
			if err := errors.Join(os.WriteFile(temporary+"/"+name, []byte(text), 0o666), os.Chmod(temporary+"/"+name, mode)); err != nil {
				return err
			}
		}
		if err := errors.Join(os.Rename(temporary, fmt.Sprintf("%s/p%d", modules, p)), os.Symlink(fmt.Sprintf("../p%d/cli.js", p), fmt.Sprintf("%s/.bin/p%d", modules, p))); err != nil {
			return err
		}
	}
	if err := installed(modules, packages); err != nil {
		return err
	}
	return os.RemoveAll(modules)
}

// installed says that all packages are there as they should be.
func installed(modules string, packages int) error {
	count := 0
	for p := range packages {
		for f := range packageFiles {
			name, text, mode := packageFile(p, f)
			path := fmt.Sprintf("%s/p%d/%s", modules, p, name)
			info, err := os.Stat(path)
			if err == nil && info.Mode().Perm()&0o111 != mode&0o111 {
				err = fmt.Errorf("%q has mode %v", path, info.Mode())
			}
			if err := errors.Join(err, contains(path, text)); err != nil {
				return err
			}
			count++
		}
		bin := fmt.Sprintf("%s/.bin/p%d", modules, p)
		if to, err := os.Readlink(bin); err != nil || to != fmt.Sprintf("../p%d/cli.js", p) {
			return fmt.Errorf("%q leads to %q: %w", bin, to, err)
		}
		if info, err := os.Stat(bin); err != nil || info.Mode().Perm()&0o100 == 0 {
			return fmt.Errorf("%q cannot be run: %w", bin, err)
		}
	}
	entries, err := os.ReadDir(modules)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".p") && e.Name() != ".package-lock.json" {
			err = fmt.Errorf("%q is left", e.Name())
		}
	}
	return err
}

// npmInstall installs packages with npm itself, from archives that lie beside.
func npmInstall(dir string, packages int) error {
	if err := needs("npm", "node"); err != nil {
		return err
	}
	if packages == 0 {
		return Missing("minutes: DEV_TEST_SHARES=all")
	}
	archives, err := os.MkdirTemp("", "packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(archives)
	var deps []string
	for p := range packages {
		path := fmt.Sprintf("%s/p%d.tgz", archives, p)
		if err := os.WriteFile(path, packageArchive(p), 0o644); err != nil {
			return err
		}
		deps = append(deps, fmt.Sprintf("%q: %q", fmt.Sprintf("p%d", p), "file:"+path))
	}
	manifest := fmt.Sprintf(`{"name": "app", "version": "1.0.0", "private": true, "dependencies": {%s}}`, strings.Join(deps, ", "))
	const npm = `npm --offline --no-audit --no-fund --no-update-notifier --loglevel=error --cache "$1/cache" `
	last := packages - 1
	due := fmt.Sprintf("package %d 2", last)
	check := func() error { return installed(dir+"/node_modules", packages) }
	return steps(func() error { return write(dir+"/package.json", manifest) }, func() error { return runs(dir, npm+"install", archives) }, check,
		func() error { return prints(dir, fmt.Sprintf("node_modules/.bin/p%d", last), due) }, func() error { return runs(dir, npm+"install", archives) }, check,
		func() error { return runs(dir, npm+"ci", archives) }, check, func() error { return runs(dir, "rm -rf node_modules; test ! -e node_modules") })
}

// packageArchive is a package as a registry has it.
func packageArchive(p int) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for f := range packageFiles {
		name, text, mode := packageFile(p, f)
		_ = t.WriteHeader(&tar.Header{Name: "package/" + name, Mode: int64(mode), Size: int64(len(text)), ModTime: time.Unix(1e9, 0)}) // into memory
		_, _ = io.WriteString(t, text)
	}
	_, _ = t.Close(), z.Close()
	return out.Bytes()
}

// largeFolder fills a folder, and lists it again and again while names come and go in it: those that stay are seen each time, and no name twice.
func largeFolder(dir string, entries int) error {
	for i := range entries {
		if err := touch(fmt.Sprintf("%s/file-%d", dir, i)); err != nil {
			return err
		}
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- comeAndGo(dir, stop) }()
	var err error
	for range 3 {
		if err = listed(dir, entries); err != nil {
			break
		}
	}
	close(stop)
	return errors.Join(err, <-stopped, removeAll(dir, entries))
}

// comeAndGo makes, renames and removes names in a folder until it is told to stop.
func comeAndGo(dir string, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		name := fmt.Sprintf("%s/other-%d", dir, i)
		if err := errors.Join(touch(name), os.Rename(name, name+"-renamed"), os.Remove(name+"-renamed")); err != nil {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

// listed says that a folder's names come once each and as a whole.
func listed(dir string, entries int) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	seen, files := map[string]bool{}, 0
	for {
		names, err := d.Readdirnames(500)
		for _, n := range names {
			if seen[n] {
				return fmt.Errorf("%q came twice", n)
			}
			seen[n] = true
			if strings.HasPrefix(n, "file-") {
				files++
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if files != entries {
		return fmt.Errorf("%d of %d names came", files, entries)
	}
	return nil
}

func removeAll(dir string, entries int) error {
	if err := os.RemoveAll(dir + "/file-0"); err != nil {
		return err
	}
	if err := listed(dir, entries-1); err != nil {
		return fmt.Errorf("after one was removed: %w", err)
	}
	return nil
}

// goBuild builds a program with a module of a proxy that is a folder. The module cache is made there, read-only as it always is, and removed.
func goBuild(dir string) error {
	if err := needs("go"); err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return Missing("a go that works")
	}
	proxy := dir + "/proxy/example.com/lib/@v"
	var module bytes.Buffer
	z := zip.NewWriter(&module)
	for name, text := range map[string]string{"go.mod": "module example.com/lib\n\ngo 1.21\n", "lib.go": "package lib\n\nfunc Name() string { return \"lib\" }\n"} {
		w, err := z.Create("example.com/lib@v1.0.0/" + name)
		if err != nil {
			return err
		}
		_, _ = io.WriteString(w, text) // into memory
	}
	if err := errors.Join(z.Close(), os.MkdirAll(proxy, 0o755), os.WriteFile(proxy+"/v1.0.0.zip", module.Bytes(), 0o644), write(proxy+"/v1.0.0.mod", "module example.com/lib\n\ngo 1.21\n"),
		write(proxy+"/v1.0.0.info", `{"Version": "v1.0.0"}`), write(proxy+"/list", "v1.0.0\n"), os.Mkdir(dir+"/app", 0o755), write(dir+"/app/go.mod", "module example.com/app\n\ngo 1.21\n\nrequire example.com/lib v1.0.0\n"),
		write(dir+"/app/main.go", "package main\n\nimport \"example.com/lib\"\n\nfunc main() { println(lib.Name()) }\n")); err != nil {
		return err
	}
	const env = `export GOPROXY="file://$0/proxy" GOSUMDB=off GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0 GOMODCACHE="$0/cache" GOCACHE="$1"; cd app; `
	gocache := strings.TrimSpace(string(cache))
	return steps(func() error { return runs(dir, env+`go mod tidy; go build -o app .; go vet .`, gocache) }, func() error { return prints(dir, `app/app`, "lib") },
		func() error {
			return runs(dir, env+`test ! -w ../cache/example.com/lib@v1.0.0/lib.go || test "$(id -u)" = 0; go mod verify`, gocache)
		},
		func() error {
			return runs(dir, env+`sed -i s/lib.Name/lib.Name/ main.go; go build -o app2 .; cmp app app2; go clean -modcache; test ! -e ../cache/example.com`, gocache)
		})
}
