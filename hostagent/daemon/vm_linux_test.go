// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/network/networktest"
	"github.com/seed71221737/dev/vmimage"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// TestVM… boot a machine under QEMU in software emulation: DEV_TEST_VM=1 asks for them, DEV_TEST_VM_IMAGE names the folder with a built image (amd64).

// vmPatience is for what software emulation on a busy machine may take.
const vmPatience = 5 * time.Minute

// qemuVM is a VM of these tests.
type qemuVM struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (v *qemuVM) Done() <-chan struct{} { return v.done }
func (v *qemuVM) Err() error            { return v.err }
func (v *qemuVM) PID() int              { return v.cmd.Process.Pid }

func (v *qemuVM) PowerOff(context.Context) error { return errors.ErrUnsupported }

func (v *qemuVM) Kill(ctx context.Context) error {
	_ = v.cmd.Process.Kill()
	select {
	case <-v.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// machineDir is a machine of these tests.
type machineDir struct {
	t     testing.TB
	dir   string
	image string
	vm    *qemuVM
	o     Options
}

func newKeyPair(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block))
}

func newMachine(t testing.TB) *machineDir {
	t.Helper()
	if os.Getenv("DEV_TEST_VM") == "" || os.Getenv("DEV_TEST_VM_IMAGE") == "" {
		t.Skip("boots a machine under QEMU: set DEV_TEST_VM=1 and DEV_TEST_VM_IMAGE")
	}
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &machineDir{t: t, dir: dir, image: filepath.Join(os.Getenv("DEV_TEST_VM_IMAGE"), "amd64")}
	data, err := os.Create(m.file("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(data.Truncate(4<<30), data.Close()); err != nil {
		t.Fatal(err)
	}
	login, _ := newKeyPair(t)
	host, hostPEM := newKeyPair(t)
	log, err := os.Create(m.file("agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	m.o = Options{
		Machine: "test", RunLock: m.file("run.lock"), Control: m.file("agent.sock"), Docker: m.file("docker.sock"), Network: m.file("net.sock"),
		Console: m.file("console"), Seed: m.file("seed"), MAC: networktest.MAC, Start: m.start, Key: login, HostKey: host.PublicKey(),
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Env: os.Environ(),
		WriteSeed: func(p SeedParts) error {
			seed := proto.Seed{
				Hostname: "test", HostKey: hostPEM, AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(login.PublicKey())))}, Time: p.Time,
				Entropy: []byte("0123456789abcdef"), DataDisk: true, Network: &p.Network, Proxy: p.Proxy, Certificates: p.Certificates, Sysctl: p.Sysctl, Mounts: p.Mounts, Engine: p.Engine, LinkSecret: p.LinkSecret,
			}
			disk, err := proto.EncodeSeed(seed)
			if err != nil {
				return err
			}
			return os.WriteFile(m.file("seed"), disk, 0o600)
		},
	}
	return m
}

func (m *machineDir) file(name string) string { return filepath.Join(m.dir, name) }

// start starts QEMU.
func (m *machineDir) start(_ context.Context, l hostagent.Link) (hostagent.VM, error) {
	manifest, err := vmimage.Verify(m.image)
	if err != nil {
		return nil, err
	}
	drive := func(id, file, ro string) []string {
		return []string{"-drive", "if=none,format=raw,id=" + id + ",file=" + file + ",readonly=" + ro, "-device", "virtio-blk-pci,drive=" + id}
	}
	args := []string{
		"-n", "5", "qemu-system-x86_64", "-machine", "q35,accel=tcg,memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=1536M,share=on", "-cpu", "max", "-smp", "2", "-m", "1536M",
		"-nodefaults", "-display", "none", "-serial", "file:" + l.Console, "-device", "virtio-rng-pci",
		"-netdev", "stream,id=net,addr.type=unix,addr.path=" + l.Network + ",server=off", "-device", "virtio-net-pci,netdev=net,romfile=,mac=" + l.MAC,
		"-kernel", filepath.Join(m.image, vmimage.KernelName), "-initrd", filepath.Join(m.image, vmimage.InitrdName),
		"-append", "console=ttyS0 quiet loglevel=4 panic=10 dev.root=" + manifest.RootUUID,
	}
	args = append(args, drive("root", filepath.Join(m.image, vmimage.RootName), "on")...)
	args = append(args, drive("seed", l.Seed, "on")...)
	args = append(args, drive("data", m.file("data"), "off")...)
	for i, s := range l.Shares {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=fs%d,path=%s", i, s.Socket), "-device", fmt.Sprintf("vhost-user-fs-pci,chardev=fs%d,tag=%s,queue-size=1024", i, s.Tag))
	}
	cmd := exec.Command("nice", args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m.vm = &qemuVM{cmd: cmd, done: make(chan struct{})}
	go func() { m.vm.err = cmd.Wait(); close(m.vm.done) }()
	return m.vm, nil
}

// running is a machine whose agent runs in the test's process.
type running struct {
	*machineDir
	client *hostagent.Client
	ended  chan error
}

// run starts the agent and waits until the machine runs.
func (m *machineDir) run() *running {
	m.t.Helper()
	r := &running{machineDir: m, client: hostagent.Dial(m.o.Control), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		r.ended <- Run(ctx, m.o)
	}()
	m.t.Cleanup(func() {
		cancel()
		<-finished
		if m.t.Failed() {
			m.t.Logf("agent:\n%s\nconsole:\n%s", tailOf(m.file("agent.log")), tailOf(m.file("console")))
		}
	})
	r.await("the machine to run", func(s *hostagent.Status) bool { return s.Phase == hostagent.Running || s.Phase == hostagent.Degraded })
	return r
}

func tailOf(file string) string {
	data, _ := os.ReadFile(file)
	return string(data[max(0, len(data)-6000):])
}

// await waits for a status.
func (r *running) await(what string, ok func(*hostagent.Status) bool) *hostagent.Status {
	r.t.Helper()
	deadline := time.Now().Add(vmPatience)
	for {
		s, err := r.client.Status(context.Background())
		switch {
		case err == nil && ok(s):
			return s
		case err == nil && s.Phase == hostagent.Failed:
			r.t.Fatalf("wait for %s: failed: %+v", what, s.Problems)
		case time.Now().After(deadline):
			r.t.Fatalf("wait for %s: %+v, %v", what, s, err)
		}
		select {
		case err := <-r.ended:
			r.t.Fatalf("wait for %s: the agent ended: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestVM(t *testing.T) {
	m := newMachine(t)
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "hello"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.o.Shares = []Share{{Tag: "home", Host: home, Guest: "/mnt/home"}}
	began := time.Now()
	r := m.run()
	s, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("running after %v: %+v %+v", time.Since(began), s, s.Metrics)
	if s.Phase != hostagent.Running {
		t.Errorf("phase %q, problems %+v", s.Phase, s.Problems)
	}
	ssh := func(command string) string { return r.ssh(s.SSH, command) }
	if got := ssh("cat /mnt/home/hello"); got != "from the host" {
		t.Errorf("the share has %q", got)
	}
	if out := ssh("echo from the guest > /mnt/home/back; chown 999:999 /mnt/home/back; nslookup host.docker.internal; ip rule"); out != "" {
		t.Log(out)
	}
	if data, err := os.ReadFile(filepath.Join(home, "back")); err != nil || string(data) != "from the guest\n" {
		t.Errorf("the host has %q, %v", data, err)
	}
	watchedInVM(t, r, s.SSH, home)
	stopping := time.Now()
	if err := r.client.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-r.ended:
		r.ended <- err
		if err != nil {
			t.Error(err)
		}
		t.Logf("stopped after %v", time.Since(stopping))
	case <-time.After(vmPatience):
		t.Fatal("it does not stop")
	}
}

// watchedInVM has a program in the machine watch the share while the host and the machine itself change files in it: each change is told once, as what it is.
func watchedInVM(t *testing.T, r *running, address, home string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", filepath.Join(home, "watcher"), "./testdata/watcher")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said := make(chan string, 1)
	go func() { said <- r.ssh(address, "/mnt/home/watcher /mnt/home last") }()
	for deadline := time.Now().Add(vmPatience); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(home, "ready")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the watcher does not start: %q", <-said)
		}
	}
	at := func(name string) string { return filepath.Join(home, name) }
	err := errors.Join(os.WriteFile(at("new"), []byte("text"), 0o644), os.Rename(at("new"), at("moved")), os.Chmod(at("moved"), 0o600), os.Remove(at("moved")),
		os.WriteFile(at("last"), nil, 0o644), os.Remove(at("last")))
	if err != nil {
		t.Fatal(err)
	}
	const want = "CREATE ready\nCLOSE_WRITE ready\nCREATE new\nMODIFY new\nCLOSE_WRITE new\nMOVED_FROM new\nMOVED_TO moved\nATTRIB moved\nDELETE moved\n" +
		"CREATE last\nCLOSE_WRITE last\nDELETE last"
	if got := strings.TrimSpace(<-said); got != want {
		t.Errorf("the watcher in the machine said:\n%s\nwant:\n%s", got, want)
	}
}

// ssh runs a command in the machine, through the port on the host.
func (r *running) ssh(address, command string) string {
	r.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	c, channels, requests, err := ssh.NewClientConn(conn, "test", &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(r.o.Key)}, HostKeyCallback: ssh.FixedHostKey(r.o.HostKey)})
	if err != nil {
		r.t.Fatal(err)
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	if err != nil {
		r.t.Errorf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}
