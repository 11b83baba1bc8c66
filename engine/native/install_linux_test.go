// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/seed71221737/dev/engine/native/archive"
)

// fakeBundle is a bundle whose programs are the given contents.
func fakeBundle(t *testing.T, arch, version string, files map[string]string) Source {
	t.Helper()
	m := archive.Manifest{Schema: archive.Schema, Version: version, OS: "linux", Arch: arch}
	for name, data := range files {
		sum := sha256.Sum256([]byte(data))
		m.Files = append(m.Files, archive.File{Path: name, Mode: "0755", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	}
	head, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	put := func(name, data string) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	put(archive.ManifestName, string(head))
	for name, data := range files {
		put(name, data)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return Source{Name: "fake.tar.zst", Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestInstall(t *testing.T) {
	bundles := t.TempDir()
	src := fakeBundle(t, runtime.GOARCH, "1.0.0", map[string]string{"bin/dockerd": "program"})
	first, err := install(t.Context(), src, bundles)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(first.bin(), "dockerd")
	before, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(t.Context(), src, bundles); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(program); err != nil || !os.SameFile(before, after) {
		t.Errorf("an unaltered bundle was unpacked again (%v)", err)
	}
	// altered on disk, and an unpacking that was interrupted
	if err := os.WriteFile(program, []byte("malware"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(bundles, ".tmp-123", "new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := install(t.Context(), src, bundles); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(program); err != nil || string(data) != "program" {
		t.Errorf("the altered file holds %q, %v", data, err)
	}
	if got := entries(t, bundles); !reflect.DeepEqual(got, []string{".lock", filepath.Base(first.dir)}) {
		t.Errorf("folder holds %q", got)
	}
}

func TestInstallConcurrently(t *testing.T) {
	bundles := t.TempDir()
	src := fakeBundle(t, runtime.GOARCH, "1.0.0", map[string]string{"bin/dockerd": "program"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := install(t.Context(), src, bundles); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestInstallOtherMachine(t *testing.T) {
	_, err := install(t.Context(), fakeBundle(t, "vax", "1.0.0", map[string]string{"bin/dockerd": "x"}), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "it is for linux/vax, this machine is linux/"+runtime.GOARCH) {
		t.Errorf("error = %v", err)
	}
}

// TestRemoveOld keeps the bundle in use, and one whose program still runs.
func TestRemoveOld(t *testing.T) {
	bundles := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]installation{}
	for version, content := range map[string]string{"1": "old", "2": string(program), "3": "new"} {
		if dirs[version], err = install(t.Context(), fakeBundle(t, runtime.GOARCH, version, map[string]string{"bin/sleep": content}), bundles); err != nil {
			t.Fatal(err)
		}
	}
	shim := exec.Command(filepath.Join(dirs["2"].bin(), "sleep"), "1000")
	if err := shim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shim.Process.Kill(); _ = shim.Wait() })
	if err := removeOld(t.Context(), bundles, dirs["3"].dir); err != nil {
		t.Fatal(err)
	}
	want := []string{".lock", filepath.Base(dirs["2"].dir), filepath.Base(dirs["3"].dir)}
	if got := entries(t, bundles); !reflect.DeepEqual(got, want) {
		t.Errorf("folder holds %q, want %q", got, want)
	}
}

func TestLocks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if isLocked(name) {
		t.Error("a lock that never was is held")
	}
	l, err := tryLock(name)
	if err != nil {
		t.Fatal(err)
	}
	if !isLocked(name) || lockHolder(name) != os.Getpid() {
		t.Errorf("held: %v, by %d", isLocked(name), lockHolder(name))
	}
	if _, err := tryLock(name); !errors.Is(err, errLocked) {
		t.Errorf("a second try = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := waitLock(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait that is too short = %v", err)
	}
	l.unlock()
	again, err := waitLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	again.unlock()
	// The wait that was given up gets the lock, too, and drops it.
	for end := time.Now().Add(time.Minute); isLocked(name); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a freed lock is held")
		}
	}
}

// TestProcessEnd: a process is ended when it is the one that was meant, and
// left alone when its PID belongs to another by now.
func TestProcessEnd(t *testing.T) {
	start := func(script string) (*exec.Cmd, process) {
		cmd := exec.Command("sh", "-c", script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has set its traps
			t.Fatal(err)
		}
		began, err := startTime(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = cmd.Wait() }()
		return cmd, process{pid: cmd.Process.Pid, start: began, exe: executable(cmd.Process.Pid)}
	}
	_, polite := start("echo; exec sleep 1000")
	polite.exe = executable(polite.pid)
	_, stubborn := start("trap '' TERM; echo; while :; do sleep 1; done")
	for name, p := range map[string]process{"polite": polite, "stubborn": stubborn} {
		if name == "polite" { // exec may have come after we looked
			p.exe = executable(p.pid)
		}
		if err := p.end(t.Context(), 200*time.Millisecond); err != nil {
			t.Errorf("end of a %s process = %v", name, err)
		}
		if executable(p.pid) != "" {
			t.Errorf("the %s process is still there", name)
		}
		if err := p.end(t.Context(), time.Second); err != nil {
			t.Errorf("end of a process that is gone = %v", err)
		}
	}
	cmd, other := start("echo; while :; do sleep 1; done")
	for _, wrong := range []process{{other.pid, "1", other.exe}, {other.pid, other.start, "/bin/other"}} {
		if err := wrong.end(t.Context(), time.Second); err != nil || executable(other.pid) == "" {
			t.Errorf("a process that was not meant was ended, or %v", err)
		}
	}
	_ = cmd.Process.Kill()
}

func TestParseMounts(t *testing.T) {
	const mountinfo = `22 1 8:1 / / rw - ext4 /dev/vda rw
31 22 0:30 / /var/lib/dev/docker/x rw - overlay overlay rw
32 22 0:31 / /var/lib/developer rw - tmpfs tmpfs rw
33 22 0:32 / /var/lib/dev/with\040space rw - tmpfs tmpfs rw
34 22 0:33 / /var/lib/dev rw - tmpfs tmpfs rw
`
	want := []string{"/var/lib/dev/docker/x", "/var/lib/dev/with space", "/var/lib/dev"}
	if got := parseMounts(mountinfo, "/var/lib/dev"); !reflect.DeepEqual(got, want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
}

func TestWriteTrust(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.pem")
	if err := writeTrust(out, nil); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"none.pem":    "hello",
		"garbage.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writeTrust(out, []string{file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("certificates of %s: %v", name, err)
		}
	}
	if err := writeTrust(out, []string{filepath.Join(dir, "gone.pem")}); err == nil {
		t.Error("certificates that are not there are no error")
	}
}

// TestSystemd starts and removes the unit with a systemctl that only notes
// what it is told.
func TestSystemd(t *testing.T) {
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$@\" >>" + calls + "\n[ \"$1 $FAIL\" != 'start 1' ]\n"
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := &Service{Paths: Paths{Root: dir, Run: dir}, UnitDir: filepath.Join(dir, "units"), Systemd: true,
		Supervisor: []string{"/usr/bin/dev", "engine", "serve"}, Log: slog.New(slog.DiscardHandler)}
	for range 2 { // the second time the unit is the same
		if err := s.startUnit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(s.UnitDir, unitName))
	if err != nil || string(text) != unitText(s.Supervisor, nil) {
		t.Errorf("unit %q, %v", text, err)
	}
	t.Setenv("FAIL", "1")
	if err := leaveFailure(s.Paths, StageStart, errors.New("no luck")); err != nil {
		t.Fatal(err)
	}
	if err := s.startUnit(t.Context()); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("a failing unit: %v", err)
	}
	for range 2 {
		if err := s.removeUnit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.UnitDir, unitName)); !os.IsNotExist(err) {
		t.Errorf("the unit is still there: %v", err)
	}
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	want := `daemon-reload
enable --quiet dev-engine.service
start dev-engine.service
enable --quiet dev-engine.service
start dev-engine.service
enable --quiet dev-engine.service
start dev-engine.service
stop dev-engine.service
disable --quiet dev-engine.service
daemon-reload
`
	if string(got) != want {
		t.Errorf("systemctl was told:\n%swant:\n%s", got, want)
	}
}
