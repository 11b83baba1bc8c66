// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build linux

package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"github.com/seed71221737/dev/vmimage/guest/share/sharetest"
)

// sharesTable compares ways to files: the guest's own disk, virtiofs as it is and with cache=watched, our own share, and sshfs, which may be missing.
func sharesTable(disk, virtiofs, watched, fuse, sshfs []sharetest.Figure) string {
	var b strings.Builder
	b.WriteString("\n## Shares\n\n| | disk | virtiofs | against the disk (aim: 1.2) | virtiofs, cache=watched | our share | sshfs | sshfs against our share (aim: 3) |\n|---|---|---|---|---|---|---|---|\n")
	seconds := func(f sharetest.Figure) string { return fmt.Sprintf("%.2f s", f.Took.Seconds()) }
	for i, f := range fuse {
		other, times := "not measured", ""
		if i < len(sshfs) {
			other, times = seconds(sshfs[i]), fmt.Sprintf("%.1f", sshfs[i].Took.Seconds()/f.Took.Seconds())
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s | %s | %s | %s |\n", f.Name, seconds(disk[i]), seconds(virtiofs[i]), virtiofs[i].Took.Seconds()/disk[i].Took.Seconds(),
			seconds(watched[i]), seconds(f), other, times)
	}
	return b.String()
}

func TestSharesTable(t *testing.T) {
	one := func(seconds int) []sharetest.Figure {
		return []sharetest.Figure{{Name: "find", Took: time.Duration(seconds) * time.Second}}
	}
	if got := sharesTable(one(2), one(3), one(5), one(4), one(12)); !strings.HasSuffix(got, "| find | 2.00 s | 3.00 s | 1.50 | 5.00 s | 4.00 s | 12.00 s | 3.0 |\n") {
		t.Error(got)
	}
	if got := sharesTable(one(2), one(3), one(5), one(4), nil); !strings.HasSuffix(got, "| 4.00 s | not measured |  |\n") {
		t.Error(got)
	}
}

// measurePatience bounds one command in the machine.
const measurePatience = 30 * time.Minute

// TestMeasureShares measures the ways to files in a machine, one after the other, each with trees that nothing has read. It asserts no times.
func TestMeasureShares(t *testing.T) {
	if *measureVM == "" {
		t.Skip("measures: use make bench-vm")
	}
	image := vmImage(t)
	program, err := filepath.Abs("../bin/dev")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "dev-vm-") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	run := func(name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), measurePatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "DEV_HOME="+filepath.Join(home, "h"), "DOCKER_CONFIG="+filepath.Join(home, "docker"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	folder := map[string]string{}
	for _, kind := range []string{"fuse", "virtiofs", "watched", "sshfs"} {
		folder[kind] = filepath.Join(home, kind)
		if err := sharetest.Prepare(folder[kind], 1); err != nil {
			t.Fatal(err)
		}
	}
	tools := filepath.Join(home, "tools")
	run("go", "test", "-c", "-o", filepath.Join(tools, "sharetest"), "../vmimage/guest/share/sharetest")
	mount := carrySSHFS(t, tools, folder["sshfs"])
	t.Cleanup(func() { run(program, "machine", "rm", "-f", "box") })
	run(program, "machine", "create", "--image", image, "--cpus", "2", "--memory", "1536", "--disk", "8g", "--docker-context", "no", "--sleep-after", "never",
		"--share", tools, "--share", folder["fuse"]+",type=fuse", "--share", folder["virtiofs"]+",type=virtiofs", "--share", folder["watched"]+",type=virtiofs,cache=watched", "box")
	inside := func(script string) string {
		t.Helper()
		return run(program, "machine", "ssh", "box", script)
	}
	inside("mkdir -p /var/tools /var/disk /mnt/sshfs && cp -a " + tools + "/. /var/tools/")
	inside("/var/tools/sharetest -test.run '^$' && sync")
	measure := func(dir string) (figures []sharetest.Figure) {
		t.Helper()
		out := inside("sync; echo 3 >/proc/sys/vm/drop_caches; /var/tools/sharetest -test.run '^TestMeasure$' -measure " + dir)
		_, after, _ := strings.Cut(out, "figures: ")
		line, _, _ := strings.Cut(after, "\n")
		if err := json.Unmarshal([]byte(line), &figures); err != nil {
			t.Fatalf("measure %s: %v\n%s", dir, err, out)
		}
		return figures
	}
	// the disk has the same trees; they come through the share before it is measured no more
	fuse, virtiofs, watched := measure(folder["fuse"]), measure(folder["virtiofs"]), measure(folder["watched"])
	inside("cp -a " + folder["virtiofs"] + "/. /var/disk/ && sync")
	disk := measure("/var/disk")
	var sshfs []sharetest.Figure
	if mount != "" {
		inside(mount)
		sshfs = measure("/mnt/sshfs")
	}
	table := sharesTable(disk, virtiofs, watched, fuse, sshfs)
	t.Log(table)
	appendTo(t, *measureVM, table)
}

// appendTo adds text to a file.
func appendTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// carrySSHFS puts this host's sshfs with its libraries into dir, serves a folder by SFTP, and returns what mounts it in a machine. It is empty where this host
// has no sshfs. There is no encryption in between, which would be emulated, too: it is sshfs at its best.
func carrySSHFS(t *testing.T, dir, served string) string {
	t.Helper()
	sshfs, err := exec.LookPath("sshfs")
	if err != nil {
		t.Log("sshfs is not compared: it is not installed on this host")
		return ""
	}
	libraries, err := exec.Command("ldd", sshfs).Output()
	if err != nil {
		t.Fatal(err)
	}
	loader := ""
	files := []string{sshfs}
	for _, word := range strings.Fields(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
			if strings.HasPrefix(filepath.Base(word), "ld-") {
				loader = filepath.Base(word)
			}
		}
	}
	lib := filepath.Join(dir, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(lib, filepath.Base(name)), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go serveSFTP(l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return fmt.Sprintf("/var/tools/lib/%s --library-path /var/tools/lib /var/tools/lib/sshfs -o directport=%s 192.168.127.254:%s /mnt/sshfs", loader, port, served)
}

func serveSFTP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if s, err := sftp.NewServer(conn); err == nil {
				_ = s.Serve() // ends with the mount
			}
		}()
	}
}
