// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/engine/native/archive"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// The tests in vm_*_test.go boot machines under QEMU in software emulation. DEV_TEST_VM=1 asks for those of `make test`, DEV_TEST_VM=all for all.
// DEV_TEST_IMAGE_CACHE keeps downloads, DEV_TEST_VM_IMAGE names a folder with built images (amd64, arm64) to use instead of building.

// requireVM skips where a test was not asked for or cannot run.
func requireVM(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv("DEV_TEST_VM") == "" {
		t.Skip("boots machines under QEMU: set DEV_TEST_VM=1, or all for the slow ones, too")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s (hack/deps.sh machines): %v", p, err)
		}
	}
}

// requireSlowVM is requireVM for what takes minutes or repeats what faster tests prove.
func requireSlowVM(t *testing.T, programs ...string) {
	t.Helper()
	requireVM(t, programs...)
	if os.Getenv("DEV_TEST_VM") != "all" {
		t.Skip("takes long: set DEV_TEST_VM=all")
	}
}

// images are built once for all tests of a run, in a folder that TestMain removes.
var images struct {
	mu   sync.Mutex
	dir  string
	done map[string]bool
}

func TestMain(m *testing.M) {
	code := m.Run()
	if images.dir != "" {
		if err := os.RemoveAll(images.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// testImage is an image of what is in the tree, with the engine where there is a bundle for that architecture.
func testImage(t *testing.T, arch string) string {
	t.Helper()
	if dir := os.Getenv("DEV_TEST_VM_IMAGE"); dir != "" {
		return filepath.Join(dir, arch)
	}
	images.mu.Lock()
	defer images.mu.Unlock()
	if images.dir == "" {
		var err error
		if images.dir, err = os.MkdirTemp("", "dev-test-images-*"); err != nil {
			t.Fatal(err)
		}
		images.done = map[string]bool{}
	}
	dir := filepath.Join(images.dir, arch)
	if !images.done[arch] {
		buildTestImage(t, arch, dir)
		images.done[arch] = true
	}
	return dir
}

// hasEngine says whether an image has the real engine, and not the stand-in for architectures without a bundle.
func hasEngine(t *testing.T, image string) bool {
	t.Helper()
	m, err := Verify(image)
	if err != nil {
		t.Fatal(err)
	}
	return m.Engine != standInEngine
}

// buildTestImage builds from the locked packages, or, where the host's mirror has moved past them, from what it has now.
func buildTestImage(t *testing.T, arch, dir string) {
	t.Helper()
	ctx := context.Background()
	spec, err := ParseSpec("image.yaml", DefaultSpec)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := ParseLock("image.lock.json", DefaultLock)
	if err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("DEV_TEST_IMAGE_CACHE")
	if cache == "" {
		cache = t.TempDir()
	}
	guest := filepath.Join(t.TempDir(), "guest")
	if err := CompileGuest(ctx, ".", arch, guest); err != nil {
		t.Fatal(err)
	}
	engine := filepath.Join("..", "dist", "engine-linux-"+arch+".tar.zst")
	if _, err := os.Stat(engine); err != nil {
		engine = writeStandInEngine(t, arch)
	}
	o := BuildOptions{
		Spec: spec, Lock: lock, Arch: arch, Engine: engine, Guest: guest, GuestProtocol: proto.Version, DataSchema: proto.DataSchema, DataOldest: proto.DataOldest,
		Mirrors: Mirrors{Host: os.DirFS("/")}, Downloads: &Downloads{Dir: cache}, Dir: dir,
	}
	_, err = Build(ctx, o)
	if gone := (*GoneError)(nil); errors.As(err, &gone) {
		t.Logf("the lock's packages are gone from the mirror; resolving anew: %v", err)
		o.Lock, err = Refresh(ctx, spec, RefreshOptions{Keyring: DefaultKeyring, Mirrors: o.Mirrors, Downloads: o.Downloads, Arches: Arches, Now: time.Now()})
		if err == nil {
			_, err = Build(ctx, o)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// standInEngine is the version of a bundle whose programs only wait.
const standInEngine = "0-stand-in"

// writeStandInEngine makes such a bundle: the boot up to the agent can be tested without the minutes that cross-compiling an engine takes.
func writeStandInEngine(t *testing.T, arch string) string {
	t.Helper()
	const program = "#!/bin/sh\nexec sleep 1000000\n"
	m := archive.Manifest{Schema: archive.Schema, Version: standInEngine, OS: "linux", Arch: arch}
	for _, name := range []string{"bin/containerd", "bin/dockerd"} {
		m.Files = append(m.Files, archive.File{Path: name, Mode: "0755", Size: int64(len(program)), SHA256: hexSum([]byte(program))})
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	add := func(name string, mode int64, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(archive.ManifestName, 0o644, manifest)
	for _, f := range m.Files {
		add(f.Path, 0o755, []byte(program))
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "engine.tar.zst")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestVMBuildImages builds images into DEV_TEST_VM_IMAGE, for the other tests to share.
func TestVMBuildImages(t *testing.T) {
	requireVM(t)
	dir := os.Getenv("DEV_TEST_VM_IMAGE")
	if dir == "" {
		t.Skip("DEV_TEST_VM_IMAGE is not set: the tests build their own images")
	}
	for _, arch := range Arches {
		buildTestImage(t, arch, filepath.Join(dir, arch))
	}
}

// vm is a machine under QEMU.
type vm struct {
	t       *testing.T
	dir     string // of the machine: disks, console
	image   string
	arch    string
	port    int
	key     ed25519.PrivateKey
	extra   []string // QEMU arguments
	uefi    bool
	microvm bool
	cmd     *exec.Cmd
	done    chan error
	began   time.Time
	forward []string // further host forwards, in QEMU's words
	ssh     *ssh.Client
	edit    func(*proto.Seed)
	monitor string // QEMU's control socket
}

// newVM makes a machine with an empty data disk of 2 GiB.
func newVM(t *testing.T, arch, image string) *vm {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "vm") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	m := &vm{t: t, dir: t.TempDir(), image: image, arch: arch, key: key, monitor: filepath.Join(short, "qmp")}
	f, err := os.Create(filepath.Join(m.dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(2<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.kill()
		if err := os.RemoveAll(short); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *vm) seed() {
	m.t.Helper()
	block, err := ssh.MarshalPrivateKey(m.key, "")
	if err != nil {
		m.t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(m.key.Public())
	if err != nil {
		m.t.Fatal(err)
	}
	s := proto.Seed{
		Hostname: "testvm", HostKey: string(pem.EncodeToMemory(block)), AuthorizedKeys: []string{string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(pub)))},
		Time: time.Now(), Entropy: []byte("0123456789abcdef"), DataDisk: true,
	}
	if m.edit != nil {
		m.edit(&s)
	}
	disk, err := proto.EncodeSeed(s)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "seed"), disk, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// args is QEMU's command line.
func (m *vm) args() (string, []string) {
	manifest, err := Verify(m.image)
	if err != nil {
		m.t.Fatal(err)
	}
	program, machine, cpu, console := "qemu-system-x86_64", "q35", "max", "ttyS0"
	if m.arch == "arm64" {
		program, machine, cpu, console = "qemu-system-aarch64", "virt", "cortex-a57", "ttyAMA0"
	}
	forwards := append([]string{fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:22", m.port)}, m.forward...)
	bus, card, cmdline := "pci", "virtio-net-pci,netdev=net,romfile=", ""
	if m.microvm {
		machine, bus, card, cmdline = "microvm,x-option-roms=off", "device", "virtio-net-device,netdev=net", tscHint()
	}
	drive := func(id, file string, readOnly bool) []string {
		ro := "off"
		if readOnly {
			ro = "on"
		}
		return []string{"-drive", "if=none,format=raw,id=" + id + ",file=" + file + ",readonly=" + ro, "-device", "virtio-blk-" + bus + ",drive=" + id}
	}
	args := []string{
		"-machine", machine + ",accel=tcg", "-cpu", cpu, "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot", "-display", "none",
		"-serial", "file:" + filepath.Join(m.dir, "console"), "-device", "virtio-rng-" + bus,
		"-netdev", "user,id=net," + strings.Join(forwards, ","), "-device", card,
		"-qmp", "unix:" + m.monitor + ",server=on,wait=off",
	}
	if m.uefi {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd")
		vars := filepath.Join(m.dir, "vars")
		data, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
		if err != nil {
			m.t.Skipf("needs OVMF: %v", err)
		}
		if err := os.WriteFile(vars, data, 0o600); err != nil {
			m.t.Fatal(err)
		}
		args = append(args, "-drive", "if=pflash,format=raw,file="+vars)
		args = append(args, drive("disk", filepath.Join(m.image, DiskName), true)...)
	} else {
		args = append(args, "-kernel", filepath.Join(m.image, KernelName), "-initrd", filepath.Join(m.image, InitrdName),
			"-append", "console="+console+" quiet loglevel=4 panic=10 dev.root="+manifest.RootUUID+cmdline)
		args = append(args, drive("root", filepath.Join(m.image, RootName), true)...)
	}
	args = append(args, drive("seed", filepath.Join(m.dir, "seed"), true)...)
	args = append(args, drive("data", filepath.Join(m.dir, "data"), false)...)
	return program, append(args, m.extra...)
}

// tscHint tells the kernel the clock rate of the time stamp counter, which is the host's under emulation: microvm has no other clock that the kernel
// can calibrate it against reliably.
func tscHint() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(data), "\n") {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "cpu MHz" {
			if mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return fmt.Sprintf(" tsc_early_khz=%d", int(mhz*1000))
			}
		}
	}
	return ""
}

// start starts QEMU.
func (m *vm) start() {
	m.t.Helper()
	m.port = freePort(m.t)
	m.seed()
	program, args := m.args()
	m.cmd = exec.Command("nice", append([]string{"-n", "10", program}, args...)...)
	m.cmd.Stderr = os.Stderr
	m.began = time.Now()
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(m.cmd, m.done)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// kill is a power cut.
func (m *vm) kill() {
	if m.ssh != nil {
		m.ssh.Close()
		m.ssh = nil
	}
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.done
		m.cmd = nil
	}
}

// patience is for what software emulation on a busy machine may take.
const patience = 10 * time.Minute

// await calls f until it succeeds; the test fails with the console when the machine ends or takes too long.
func (m *vm) await(what string, f func() error) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case end := <-m.done:
			m.done <- end
			m.t.Fatalf("%s: QEMU ended: %v\n%s", what, end, m.console())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: %v\n%s", what, err, m.console())
		}
	}
}

func (m *vm) console() string {
	data, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(data[max(0, len(data)-8000):])
}

// login waits for the agent.
func (m *vm) login() {
	m.t.Helper()
	signer, err := ssh.NewSignerFromKey(m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	config := &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(signer.PublicKey()), Timeout: 20 * time.Second}
	m.await("log in", func() error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", m.port), time.Second)
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		c, channels, requests, err := ssh.NewClientConn(conn, "testvm", config)
		if err != nil {
			return errors.Join(err, conn.Close())
		}
		_ = conn.SetDeadline(time.Time{})
		m.ssh = ssh.NewClient(c, channels, requests)
		return nil
	})
}

// sh runs a command in the machine and returns what it says.
func (m *vm) sh(command string) string {
	m.t.Helper()
	s, err := m.ssh.NewSession()
	if err != nil {
		m.t.Fatal(err)
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// control opens the control subsystem.
func (m *vm) control() *proto.Client {
	m.t.Helper()
	s, err := m.ssh.NewSession()
	if err != nil {
		m.t.Fatal(err)
	}
	in, err1 := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err1, err2, s.RequestSubsystem(proto.Subsystem)); err != nil {
		m.t.Fatal(err)
	}
	c, err := proto.NewClient(stream{out, in, s}, "test")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

type stream struct {
	io.Reader
	io.WriteCloser
	s *ssh.Session
}

func (s stream) Close() error { return errors.Join(s.WriteCloser.Close(), s.s.Close()) }

// docker calls the Docker API; a body that is not a reader is sent as JSON.
func (m *vm) docker(method, path string, body any) ([]byte, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return m.ssh.Dial("unix", "/run/docker.sock")
	}}}
	req, err := http.NewRequest(method, "http://docker"+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if _, raw := body.(io.Reader); raw {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 400 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, data)
	}
	return data, err
}

// must is docker for calls that have to succeed.
func (m *vm) must(method, path string, body any) []byte {
	m.t.Helper()
	data, err := m.docker(method, path, body)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.console())
	}
	return data
}

// awaitEngine waits for the first answer of the Docker API and returns how long it took from QEMU's start.
func (m *vm) awaitEngine() time.Duration {
	m.t.Helper()
	m.await("ask the engine", func() error {
		_, err := m.docker(http.MethodGet, "/_ping", nil)
		return err
	})
	return time.Since(m.began)
}

// qmp gives QEMU an order.
func (m *vm) qmp(command string) {
	m.t.Helper()
	conn, err := net.Dial("unix", m.monitor)
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	in := json.NewDecoder(conn)
	answer := func() {
		for {
			var a map[string]any
			if err := in.Decode(&a); err != nil {
				m.t.Fatalf("QEMU: %v", err)
			}
			if a["error"] != nil {
				m.t.Fatalf("QEMU: %v", a)
			}
			if a["event"] == nil {
				return
			}
		}
	}
	answer() // its greeting
	for _, c := range []string{"qmp_capabilities", command} {
		if err := json.NewEncoder(conn).Encode(map[string]string{"execute": c}); err != nil {
			m.t.Fatal(err)
		}
		answer()
	}
}

// awaitEnd waits for QEMU to end by itself.
func (m *vm) awaitEnd() {
	m.t.Helper()
	select {
	case <-m.done:
		m.cmd, m.ssh = nil, nil
	case <-time.After(patience):
		m.t.Fatalf("the machine did not power off\n%s", m.console())
	}
}

// powerOff asks the machine to go down and waits for QEMU to end.
func (m *vm) powerOff() {
	m.t.Helper()
	c := m.control()
	_ = c.Call(context.Background(), proto.MethodPowerOff, nil, nil) // the link may be gone before the answer
	m.awaitEnd()
}
