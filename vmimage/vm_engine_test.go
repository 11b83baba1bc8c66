// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// importBusybox gives the engine an image named "box" made of the host's static busybox.
func (m *vm) importBusybox() {
	m.t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		m.t.Skipf("needs busybox-static: %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})
	_, _ = w.Write(program)
	for _, name := range []string{"sh", "cat", "nc", "httpd", "wget", "mkdir", "echo", "sync", "sleep"} {
		_ = w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink})
	}
	_ = w.WriteHeader(&tar.Header{Name: "tmp/", Mode: 0o1777, Typeflag: tar.TypeDir})
	if err := w.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.must(http.MethodPost, "/images/create?fromSrc=-&repo=box&changes=ENV+PATH=/bin", &b)
}

// container starts a container; network and volume may be empty, port publishes 8080.
func (m *vm) container(name, command, network, volume string, publish bool) {
	m.t.Helper()
	host := map[string]any{}
	body := map[string]any{"Image": "box", "Cmd": []string{"sh", "-c", command}, "Tty": true, "HostConfig": host}
	if network != "" {
		host["NetworkMode"] = network
	}
	if volume != "" {
		host["Binds"] = []string{volume + ":/data"}
	}
	if publish {
		body["ExposedPorts"] = map[string]any{"8080/tcp": struct{}{}}
		host["PortBindings"] = map[string]any{"8080/tcp": []map[string]string{{"HostPort": "8080"}}}
	}
	m.must(http.MethodPost, "/containers/create?name="+name, body)
	m.must(http.MethodPost, "/containers/"+name+"/start", nil)
}

// output runs a container to its end and returns what it said.
func (m *vm) output(name, command, network, volume string) string {
	m.t.Helper()
	m.container(name, command, network, volume, false)
	var end struct{ StatusCode int }
	if err := json.Unmarshal(m.must(http.MethodPost, "/containers/"+name+"/wait", nil), &end); err != nil {
		m.t.Fatal(err)
	}
	out := strings.TrimSpace(string(m.must(http.MethodGet, "/containers/"+name+"/logs?stdout=1&stderr=1", nil)))
	if end.StatusCode != 0 {
		m.t.Fatalf("container %s ended with %d: %s", name, end.StatusCode, out)
	}
	m.must(http.MethodDelete, "/containers/"+name, nil)
	return out
}

// boot starts the machine and waits for its engine.
func (m *vm) boot() {
	m.t.Helper()
	m.start()
	m.login()
	m.awaitEngine()
}

func (m *vm) health() proto.Health {
	m.t.Helper()
	var h proto.Health
	if err := m.control().Call(context.Background(), proto.MethodHealth, nil, &h); err != nil {
		m.t.Fatal(err)
	}
	return h
}

// settled waits until the boot is over, with the data disk in use, and returns the machine's health.
func (m *vm) settled() proto.Health {
	m.t.Helper()
	m.await("finish the boot", func() error {
		var info proto.Info
		if err := m.control().Call(context.Background(), proto.MethodInfo, nil, &info); err != nil {
			return err
		}
		if info.Status.DataSchema != 1 || !slices.ContainsFunc(info.Status.Stages, func(s proto.Stage) bool { return s.Name == "machine" }) {
			return fmt.Errorf("so far: %+v", info.Status)
		}
		return nil
	})
	return m.health()
}

// TestVMRunsContainersAndKeepsVolumes: containers find each other by name and publish ports; a volume survives a power cut.
func TestVMRunsContainersAndKeepsVolumes(t *testing.T) {
	requireVM(t, "qemu-system-x86_64")
	m := newVM(t, "amd64", testImage(t, "amd64"))
	port := freePort(t)
	m.forward = []string{fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:8080", port)}
	m.boot()
	m.importBusybox()
	m.must(http.MethodPost, "/networks/create", map[string]string{"Name": "net"})
	m.container("web", "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www", "net", "", true)
	if got := m.output("client", "wget -qO- http://web:8080/", "net", ""); got != "hello" {
		t.Errorf("by name: %q", got)
	}
	m.await("reach the published port", func() error {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if strings.TrimSpace(string(body)) != "hello" {
			return fmt.Errorf("got %q, %w", body, err)
		}
		return nil
	})
	if got := m.output("writer", "echo kept > /data/file; sync; cat /data/file", "", "vol"); got != "kept" {
		t.Fatalf("write: %q", got)
	}
	m.kill() // a power cut

	m.boot()
	if got := m.output("after-power-cut", "cat /data/file", "", "vol"); got != "kept" {
		t.Errorf("after a power cut: %q", got)
	}
	m.powerOff()
}

// TestVMKeepsVolumesAcrossImages: a volume survives power-off, another image, and the way back.
func TestVMKeepsVolumesAcrossImages(t *testing.T) {
	requireSlowVM(t, "qemu-system-x86_64")
	m := newVM(t, "amd64", testImage(t, "amd64"))
	m.boot()
	m.importBusybox()
	if got := m.output("writer", "echo kept > /data/file; cat /data/file", "", "vol"); got != "kept" {
		t.Fatalf("write: %q", got)
	}
	m.powerOff()
	before := m.image
	m.image = otherImage(t)
	m.boot()
	if got := m.sh("cat /etc/upgraded"); got != "yes" {
		t.Errorf("the new image is not running: %q", got)
	}
	if got := m.output("after-upgrade", "cat /data/file", "", "vol"); got != "kept" {
		t.Errorf("after an image upgrade: %q", got)
	}
	m.powerOff()
	m.image = before
	m.boot()
	if got := m.output("after-going-back", "cat /data/file", "", "vol"); got != "kept" {
		t.Errorf("after going back: %q", got)
	}
}

// TestVMServesTheHost: what the host asks of a machine beyond the engine, in one boot: swap, snapshots, trimming, sizes, and the power button.
func TestVMServesTheHost(t *testing.T) {
	requireVM(t, "qemu-system-x86_64")
	m := newVM(t, "amd64", testImage(t, "amd64"))
	m.edit = func(s *proto.Seed) {
		s.SwapMiB, s.ZramMiB = 64, 128
		s.Sysctl = map[string]string{"vm.swappiness": "42"}
		s.Emulators = map[string]string{"arm64": "/bin/busybox"}
	}
	m.boot()
	if h := m.settled(); !h.OK {
		t.Errorf("health: %+v", h)
	}
	if got := m.sh("cat /proc/swaps"); !strings.Contains(got, "/dev/zram0") || !strings.Contains(got, "/var/.dev-swap") {
		t.Errorf("swap: %s", got)
	}
	if got := m.sh("cat /proc/sys/vm/swappiness /proc/sys/net/ipv4/ip_forward"); got != "42\n1" {
		t.Errorf("kernel settings: %q", got)
	}
	if got := m.sh("cat /proc/sys/fs/binfmt_misc/dev-arm64"); !strings.Contains(got, "enabled") || !strings.Contains(got, "interpreter /bin/busybox") {
		t.Errorf("the emulator: %s", got)
	}
	control, ctx := m.control(), context.Background()
	if err := control.Call(ctx, proto.MethodFreeze, nil, nil); err != nil {
		t.Error(err)
	}
	later := time.Now().Add(48 * time.Hour)
	if err := control.Call(ctx, proto.MethodThaw, proto.AfterRestore{Time: later, Entropy: []byte("fresh entropy of the host")}, nil); err != nil {
		t.Error(err)
	}
	var info proto.Info
	if err := control.Call(ctx, proto.MethodInfo, nil, &info); err != nil || info.Clock.Before(later) {
		t.Errorf("after a restore the clock is at %v, %v; want %v or later", info.Clock, err, later)
	}
	if err := control.Call(ctx, proto.MethodTrim, nil, nil); err != nil {
		t.Error(err)
	}
	var ports []proto.Port
	if err := control.Call(ctx, proto.MethodPorts, nil, &ports); err != nil || !slices.ContainsFunc(ports, func(p proto.Port) bool { return p.Port == 22 }) {
		t.Errorf("ports: %+v, %v", ports, err)
	}
	if err := control.Call(ctx, proto.MethodMount, proto.Mount{Source: "none", Target: "/Users/me", Type: "tmpfs"}, nil); err != nil {
		t.Error(err)
	}
	if got := m.sh("echo x > /Users/me/file && cat /Users/me/file"); got != "x" {
		t.Errorf("a share: %q", got)
	}
	var logs proto.Logs
	if err := control.Call(ctx, proto.MethodLogs, proto.LogsRequest{Name: "dockerd"}, &logs); err != nil || !strings.Contains(logs.Text, "API listen") {
		t.Errorf("logs: %v, %q", err, logs.Text)
	}
	m.qmp("system_powerdown")
	m.awaitEnd()
	if got := m.console(); !strings.Contains(got, "data written") {
		t.Errorf("the power button did not end the machine in order:\n%s", got)
	}
}

// otherImage builds the image with one file more.
func otherImage(t *testing.T) string {
	t.Helper()
	saved := DefaultSpec
	t.Cleanup(func() { DefaultSpec = saved })
	savedLock := DefaultLock
	t.Cleanup(func() { DefaultLock = savedLock })
	DefaultSpec = append(bytes.Clone(saved), "  - path: etc/upgraded\n    content: \"yes\"\n"...)
	old, now := sha256.Sum256(saved), sha256.Sum256(DefaultSpec)
	DefaultLock = bytes.ReplaceAll(savedLock, fmt.Appendf(nil, "%x", old), fmt.Appendf(nil, "%x", now))
	dir := filepath.Join(t.TempDir(), "image")
	buildTestImage(t, "amd64", dir)
	return dir
}

// TestVMFullDataDisk: a full disk is reported, the machine stays reachable, and it recovers when there is room again.
func TestVMFullDataDisk(t *testing.T) {
	requireSlowVM(t, "qemu-system-x86_64")
	m := newVM(t, "amd64", testImage(t, "amd64"))
	if err := os.Truncate(filepath.Join(m.dir, "data"), 300<<20); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if h := m.health(); !h.OK {
		t.Errorf("before: %+v", h)
	}
	m.sh("dd if=/dev/zero of=/var/fill bs=1M 2>/dev/null || true")
	if h := m.health(); h.OK || !strings.Contains(strings.Join(h.Problems, "\n"), "data disk is full") {
		t.Errorf("full: %+v", h)
	}
	m.kill()
	m.start()
	m.login()
	if h := m.health(); !strings.Contains(strings.Join(h.Problems, "\n"), "data disk is full") {
		t.Errorf("full, started anew: %+v", h)
	}
	m.sh("rm /var/fill")
	m.awaitEngine()
	if h := m.health(); !h.OK {
		t.Errorf("after making room: %+v", h)
	}
	// The disk grows when the host's file did.
	m.powerOff()
	if err := os.Truncate(filepath.Join(m.dir, "data"), 600<<20); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if h := m.health(); h.Disk.Total < 450<<20 {
		t.Errorf("after growing the disk: %+v", h)
	}
}

// TestVMDamagedDataDisk: what can be repaired is, with a warning; what cannot be told is left alone.
func TestVMDamagedDataDisk(t *testing.T) {
	requireSlowVM(t, "qemu-system-x86_64")
	m := newVM(t, "amd64", testImage(t, "amd64"))
	data := filepath.Join(m.dir, "data")
	m.boot()
	m.sh("echo kept > /var/lib/file; sync")
	m.powerOff()

	overwrite(t, data, 1024, make([]byte, 1024))
	m.boot()
	if got := m.sh("cat /var/lib/file"); got != "kept" {
		t.Errorf("after the repair: %q", got)
	}
	if h := m.health(); !strings.Contains(strings.Join(h.Warnings, "\n"), "repaired") {
		t.Errorf("the repair is not reported: %+v", h)
	}
	m.powerOff()

	garbage := bytes.Repeat([]byte("garbage!"), 200<<20/8)
	overwrite(t, data, 0, garbage)
	m.start()
	m.login()
	deadline := time.Now().Add(patience)
	var h proto.Health
	for h = m.health(); len(h.Problems) == 0 && time.Now().Before(deadline); h = m.health() {
		time.Sleep(200 * time.Millisecond)
	}
	if h.OK || !strings.Contains(strings.Join(h.Problems, "\n"), "left alone") {
		t.Errorf("a disk full of garbage: %+v", h)
	}
	m.powerOff()
	after, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after[:len(garbage)], garbage) {
		t.Error("a disk that was refused was written to")
	}
}

func overwrite(t *testing.T, name string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}
