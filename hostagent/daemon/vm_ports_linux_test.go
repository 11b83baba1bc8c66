// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	api "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
)

// docker is a client of the machine's engine, through the socket on the host.
func (r *running) docker() *client.Client {
	r.t.Helper()
	c, err := client.New(client.WithHost("unix://" + r.o.Docker))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// program builds the program of these tests that runs in machines, once.
func (r *running) program() string {
	r.t.Helper()
	program := r.file("guest")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	return program
}

// image makes an image of that program.
func (r *running) image(c *client.Client) {
	r.t.Helper()
	data, err := os.ReadFile(r.program())
	if err != nil {
		r.t.Fatal(err)
	}
	var rootfs bytes.Buffer
	w := tar.NewWriter(&rootfs)
	if err := w.WriteHeader(&tar.Header{Name: "guest", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
		r.t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		r.t.Fatal(err)
	}
	result, err := c.ImageImport(context.Background(), client.ImageImportSource{Source: &rootfs, SourceName: "-"}, "guest:test", client.ImageImportOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer result.Close()
	if out, err := io.ReadAll(result); err != nil || bytes.Contains(out, []byte("errorDetail")) {
		r.t.Fatalf("%v: %s", err, out)
	}
}

// container runs the test server with published ports, and returns when it has started.
func (r *running) container(c *client.Client, name string, ports api.PortMap) {
	r.t.Helper()
	exposed := api.PortSet{}
	for p := range ports {
		exposed[p] = struct{}{}
	}
	created, err := c.ContainerCreate(context.Background(), client.ContainerCreateOptions{
		Name: name, Config: &container.Config{Image: "guest:test", Cmd: []string{"/guest", "serve"}, ExposedPorts: exposed}, HostConfig: &container.HostConfig{PortBindings: ports},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := c.ContainerStart(context.Background(), created.ID, client.ContainerStartOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// hostAddress is an address of this host other than the loopback; invalid where it has none.
func hostAddress() netip.Addr {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			addr, _ := netip.AddrFromSlice(n.IP.To4())
			return addr
		}
	}
	return netip.Addr{}
}

// TestVMPorts publishes ports of every kind from a real container in a real machine, pauses the machine, and logs figures.
func TestVMPorts(t *testing.T) {
	m := newMachine(t)
	r := m.run()
	c := r.docker()
	r.image(c)
	ports := map[string]uint16{}
	for _, name := range []string{"wild", "loop", "loop6", "own", "udp", "file", "sink"} {
		ports[name] = number(t, freePort(t, "tcp", "0.0.0.0"))
	}
	bind := func(name string, addrs ...string) []api.PortBinding {
		var out []api.PortBinding
		for _, a := range addrs {
			out = append(out, api.PortBinding{HostIP: netip.MustParseAddr(a), HostPort: fmt.Sprint(ports[name])})
		}
		return out
	}
	own := hostAddress()
	echoed := api.PortMap{api.MustParsePort("7/tcp"): slices.Concat(bind("wild", "0.0.0.0", "::"), bind("loop", "127.0.0.1"), bind("loop6", "::1"))}
	if own.IsValid() {
		echoed[api.MustParsePort("7/tcp")] = append(echoed[api.MustParsePort("7/tcp")], bind("own", own.String())...)
	}
	echoed[api.MustParsePort("7/udp")] = bind("udp", "0.0.0.0")
	echoed[api.MustParsePort("19/tcp")] = bind("file", "0.0.0.0")
	echoed[api.MustParsePort("9/tcp")] = bind("sink", "0.0.0.0")
	r.container(c, "echo", echoed)
	want := 0
	for _, bindings := range echoed {
		want += len(bindings)
	}
	s := r.await("the ports", func(s *hostagent.Status) bool { return len(s.Ports) == want })
	for _, p := range s.Ports {
		if p.Problem != "" {
			t.Errorf("port %+v", p)
		}
	}
	r.await("the server", func(*hostagent.Status) bool { return echoes(fmt.Sprintf("127.0.0.1:%d", ports["wild"])) })
	addresses := []string{fmt.Sprintf("[::1]:%d", ports["wild"]), fmt.Sprintf("127.0.0.1:%d", ports["loop"]), fmt.Sprintf("[::1]:%d", ports["loop6"])}
	if own.IsValid() {
		addresses = append(addresses, netip.AddrPortFrom(own, ports["own"]).String())
	}
	for _, a := range addresses {
		if !echoes(a) {
			t.Errorf("%s does not answer", a)
		}
	}
	udp, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", ports["udp"]))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if got := ask(t, udp, "datagram"); got != "datagram" {
		t.Errorf("udp: got %q", got)
	}
	r.figures(s.SSH, ports)
	r.pause(s.SSH)
	if _, err := c.ContainerRemove(context.Background(), "echo", client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	r.await("the end of the ports", func(s *hostagent.Status) bool { return len(s.Ports) == 0 })
	if *measureVM != "" {
		r.measureAgent(c)
	}
}

// measureAgent takes the figures of the machine's host agent, and ends the machine.
func (r *running) measureAgent(c *client.Client) {
	r.t.Helper()
	cost := agentCost{appears: r.appears(c)}
	if _, err := c.ContainerRemove(context.Background(), "appears", client.ContainerRemoveOptions{Force: true}); err != nil {
		r.t.Error(err)
	}
	cost.idle, cost.memory = r.idle(2 * time.Minute)
	cost.stop = r.stop()
	report(r.t, agentTable(cost))
}

func echoes(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return pingPong(c) == nil
}

// pingPong sends a message and waits for it to come back.
func pingPong(c io.ReadWriter) error {
	buf := bytes.Repeat([]byte("x"), 64)
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf)
	return err
}

// figures logs what a published port costs, against the same server through an SSH connection, and the Docker API, against the same inside.
func (r *running) figures(sshAddress string, ports map[string]uint16) {
	r.t.Helper()
	config := &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(r.o.Key)}, HostKeyCallback: ssh.FixedHostKey(r.o.HostKey)}
	link, err := ssh.Dial("tcp", sshAddress, config)
	if err != nil {
		r.t.Fatal(err)
	}
	defer link.Close()
	var costs []wayCost
	for _, way := range []struct {
		dial func(port string) (net.Conn, error)
	}{
		{func(p string) (net.Conn, error) {
			return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[p]))
		}},
		{func(p string) (net.Conn, error) {
			return link.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[p]))
		}},
	} {
		kept, err := way.dial("wild")
		if err != nil {
			r.t.Fatal(err)
		}
		keep := medianOf(100, func() error { return pingPong(kept) })
		_ = kept.Close()
		fresh := medianOf(20, func() error {
			c, err := way.dial("wild")
			if err != nil {
				return err
			}
			defer c.Close()
			return pingPong(c)
		})
		down, err := throughput(way.dial, "file", func(c net.Conn) (int64, error) {
			return io.Copy(io.Discard, c)
		})
		if err != nil {
			r.t.Error(err)
		}
		up, err := throughput(way.dial, "sink", func(c net.Conn) (int64, error) {
			n, err := io.Copy(c, io.LimitReader(zeros{}, 32<<20))
			if h, ok := c.(interface{ CloseWrite() error }); ok {
				_ = h.CloseWrite()
			}
			_, _ = io.Copy(io.Discard, c) // until it was all taken
			return n, err
		})
		if err != nil {
			r.t.Error(err)
		}
		costs = append(costs, wayCost{keep, fresh, down, up})
	}
	report(r.t, portsTable(costs[0], costs[1]))
	r.api(link)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func medianOf(n int, f func() error) time.Duration {
	var took []time.Duration
	for range n {
		began := time.Now()
		if f() == nil {
			took = append(took, time.Since(began))
		}
	}
	if len(took) == 0 {
		return -1
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func throughput(dial func(string) (net.Conn, error), port string, move func(net.Conn) (int64, error)) (float64, error) {
	c, err := dial(port)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	n, err := move(c)
	return float64(n) / 1e6 / time.Since(began).Seconds(), err
}

// api compares the Docker API's latency at the socket on the host with that in the machine.
func (r *running) api(link *ssh.Client) {
	r.t.Helper()
	program := r.program()
	s, err := link.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	file, err := os.Open(program)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	s.Stdin = file
	inside, err := s.CombinedOutput("cat > /run/guest && chmod 755 /run/guest && /run/guest ping /run/docker.sock")
	if err != nil {
		r.t.Errorf("%v: %s", err, inside)
	}
	outside, err := exec.Command(program, "ping", r.o.Docker).CombinedOutput()
	if err != nil {
		r.t.Errorf("%v: %s", err, outside)
	}
	report(r.t, apiTable(pings(r.t, string(inside)), pings(r.t, string(outside))))
}

// pings reads what the program's ping says: microseconds for a kept connection and for a new one.
func pings(t testing.TB, text string) [2]time.Duration {
	t.Helper()
	var kept, fresh int64
	if _, err := fmt.Sscan(text, &kept, &fresh); err != nil {
		t.Errorf("%q: %v", text, err)
	}
	return [2]time.Duration{time.Duration(kept) * time.Microsecond, time.Duration(fresh) * time.Microsecond}
}

// pause stops the machine for a while and compares the clocks after it.
func (r *running) pause(sshAddress string) {
	r.t.Helper()
	group := -r.vm.cmd.Process.Pid
	if err := syscall.Kill(group, syscall.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	<-time.After(15 * time.Second)
	if err := syscall.Kill(group, syscall.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
	began := time.Now()
	text := r.ssh(sshAddress, "date +%s")
	var seconds int64
	if _, err := fmt.Sscan(text, &seconds); err != nil {
		r.t.Fatalf("%q: %v", text, err)
	}
	r.t.Logf("after a pause of 15 s the machine answered in %v, its clock is %d s behind", time.Since(began), time.Now().Unix()-seconds)
	r.await("the clock to be right", func(s *hostagent.Status) bool { return s.Metrics.ClockOffset.Abs() < time.Second })
}
