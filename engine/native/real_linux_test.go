// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/engine/enginetest"
	"github.com/seed71221737/dev/engine/native"
	"github.com/seed71221737/dev/engine/native/archive"
	"github.com/seed71221737/dev/engine/native/supervise"
)

func TestMain(m *testing.M) {
	enginetest.Isolate()
	os.Exit(m.Run())
}

const image = "busybox:native"

// run starts a container that runs until it is stopped, and returns its ID.
func run(t *testing.T, c *client.Client, policy container.RestartPolicyMode) string {
	t.Helper()
	enginetest.BusyboxImage(t, c, image)
	created, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Cmd: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"}},
		HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: policy}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = c.ContainerRemove(context.Background(), created.ID, client.ContainerRemoveOptions{Force: true})
	})
	return created.ID
}

// process is the process of a container, 0 when it does not run.
func process(t *testing.T, c *client.Client, id string) int {
	t.Helper()
	got, err := c.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Container.State.Running {
		return 0
	}
	return got.Container.State.Pid
}

func status(t *testing.T, e *enginetest.Engine) native.Status {
	t.Helper()
	st, err := e.Service.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func find(t *testing.T, st native.Status, name string) supervise.State {
	t.Helper()
	if st.Report != nil {
		for _, c := range st.Report.Components {
			if c.Name == name {
				return c
			}
		}
	}
	t.Fatalf("status has no component %q: %+v", name, st)
	return supervise.State{}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}

// programs counts the processes that run a program, by its name.
func programs(t *testing.T, name string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == name {
			n++
		}
	}
	return n
}

func start(t *testing.T, e *enginetest.Engine) {
	t.Helper()
	if _, err := e.Service.Start(t.Context(), enginetest.Settings()); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, e *enginetest.Engine, o native.StopOptions) {
	t.Helper()
	stopped, err := e.Service.Stop(t.Context(), o)
	if err != nil || !stopped {
		t.Fatalf("Stop = %v, %v", stopped, err)
	}
}

func TestStatusOfRunningEngine(t *testing.T) {
	e := enginetest.Start(t)
	st := status(t, e)
	if st.Phase != native.PhaseRunning || st.Engine == "" || st.Disk == nil || st.Report.Version == "" {
		t.Errorf("status of a running engine: %+v", st)
	}
	for _, name := range []string{"containerd", "dockerd"} {
		if c := find(t, st, name); c.Phase != supervise.Running || c.PID == 0 {
			t.Errorf("component %s: %+v", name, c)
		}
	}
	if started, err := e.Service.Start(t.Context(), enginetest.Settings()); started || err != nil {
		t.Errorf("a second start = %v, %v; want false, no error", started, err)
	}
}

// TestKilledComponent kills each component: it is restarted, the status says
// so, and containers do not notice.
func TestKilledComponent(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	for _, name := range []string{"dockerd", "containerd"} {
		t.Run(name, func(t *testing.T) {
			id := run(t, c, container.RestartPolicyDisabled)
			pid := process(t, c, id)
			before := find(t, status(t, e), name)
			if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" runs again", func() bool {
				now := find(t, status(t, e), name)
				return now.Phase == supervise.Running && now.Restarts == before.Restarts+1
			})
			if now := find(t, status(t, e), name); now.LastExit == nil || now.LastExit.Reason != "signal: killed" {
				t.Errorf("last exit = %+v, want signal: killed", now.LastExit)
			}
			if got := process(t, c, id); got != pid || pid == 0 {
				t.Errorf("the container's process is %d, was %d", got, pid)
			}
			// dockerd connects to a new containerd after a second
			eventually(t, "images can be listed", func() bool {
				_, err := c.ImageList(t.Context(), client.ImageListOptions{})
				return err == nil
			})
			run(t, c, container.RestartPolicyDisabled) // and new ones start
		})
	}
}

// TestKilledSupervisor kills the supervisor: its components end, and the next
// start finds the containers.
func TestKilledSupervisor(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	id := run(t, c, container.RestartPolicyDisabled)
	pid := process(t, c, id)
	if err := syscall.Kill(status(t, e).Report.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start(t, e)
	if got := process(t, c, id); got != pid || pid == 0 {
		t.Errorf("the container's process is %d, was %d", got, pid)
	}
	for _, name := range []string{"dockerd", "containerd"} {
		if n := programs(t, name); n != 1 {
			t.Errorf("%d processes run %s", n, name)
		}
	}
}

// TestEverythingKilled is a power cut without the cut: nothing of the engine
// is left, not even the containers.
func TestEverythingKilled(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	id := run(t, c, container.RestartPolicyAlways)
	st := status(t, e)
	for _, pid := range []int{st.Report.PID, find(t, st, "dockerd").PID, find(t, st, "containerd").PID, process(t, c, id)} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH { // the kernel may have been faster
			t.Fatal(err)
		}
	}
	start(t, e)
	eventually(t, "the container with a restart policy runs", func() bool { return process(t, c, id) != 0 })
}

func TestRestartKeepsContainers(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	id := run(t, c, container.RestartPolicyDisabled)
	pid := process(t, c, id)
	stop(t, e, native.StopOptions{KeepContainers: true})
	if n := e.Service.Orphans(); n == 0 {
		t.Error("no container runs without the engine")
	}
	start(t, e)
	if got := process(t, c, id); got != pid || pid == 0 {
		t.Errorf("the container's process is %d, was %d", got, pid)
	}
}

// TestStop stops the containers, leaves no process, and lets those with a
// restart policy come back.
func TestStop(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	always, never := run(t, c, container.RestartPolicyUnlessStopped), run(t, c, container.RestartPolicyDisabled)
	stop(t, e, native.StopOptions{})
	for _, name := range []string{"dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"} {
		if n := programs(t, name); n != 0 {
			t.Errorf("%d processes run %s after a stop", n, name)
		}
	}
	if _, err := net.Dial("unix", e.Paths.Socket()); err == nil {
		t.Error("the socket answers after a stop")
	}
	if st := status(t, e); st.Phase != native.PhaseStopped {
		t.Errorf("phase after a stop = %q", st.Phase)
	}
	if stopped, err := e.Service.Stop(t.Context(), native.StopOptions{}); stopped || err != nil {
		t.Errorf("a second stop = %v, %v; want false, no error", stopped, err)
	}
	start(t, e)
	eventually(t, "the container with a restart policy runs", func() bool { return process(t, c, always) != 0 })
	got, err := c.ContainerInspect(t.Context(), never, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if st := got.Container.State; st.Running || st.ExitCode != 0 {
		t.Errorf("the other container: running %v, exit code %d; want stopped by SIGTERM", st.Running, st.ExitCode)
	}
}

func TestConcurrentStarts(t *testing.T) {
	e := enginetest.Start(t)
	stop(t, e, native.StopOptions{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := 0
	for range 5 {
		wg.Go(func() {
			started, err := e.Service.Start(t.Context(), enginetest.Settings())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if started {
				count++
			}
		})
	}
	wg.Wait()
	if count != 1 {
		t.Errorf("%d of 5 starts started the engine, want 1", count)
	}
}

// TestFirewalls runs the engine with each backend the host has.
func TestFirewalls(t *testing.T) {
	e := enginetest.Start(t)
	t.Cleanup(func() {
		stopAndStart(e)
	})
	for _, backend := range []native.Firewall{native.FirewallIptables, native.FirewallNftables} {
		t.Run(string(backend), func(t *testing.T) {
			stop(t, e, native.StopOptions{})
			settings := enginetest.Settings()
			settings.Firewall = backend
			_, err := e.Service.Start(t.Context(), settings)
			var failure *native.Failure
			if errors.As(err, &failure) && failure.ExitCode() == native.ExitImpossible {
				start(t, e)
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := e.Client(t)
			info, err := c.Info(t.Context(), client.InfoOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Info.FirewallBackend.Driver; got != string(backend) {
				t.Errorf("firewall backend = %q, want %q", got, backend)
			}
			run(t, c, container.RestartPolicyDisabled)
		})
	}
}

func stopAndStart(e *enginetest.Engine) {
	_, _ = e.Service.Stop(context.Background(), native.StopOptions{})
	_, _ = e.Service.Start(context.Background(), enginetest.Settings())
}

// TestAlteredBundle changes one byte in the middle of a bundle: it is refused
// by name, and nothing is started or left.
func TestAlteredBundle(t *testing.T) {
	e := enginetest.Start(t)
	stop(t, e, native.StopOptions{})
	t.Cleanup(func() { stopAndStart(e) })
	source, err := e.Service.Source.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(source)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	bundle := filepath.Join(t.TempDir(), "altered.tar.zst")
	if err := os.WriteFile(bundle, data, 0o644); err != nil {
		t.Fatal(err)
	}
	paths := native.Paths{Root: t.TempDir(), Run: filepath.Join(e.Paths.Run, "2")}
	err = native.Serve(t.Context(), native.ServeOptions{
		Paths: paths, Log: e.Service.Log,
		Source: native.Source{Name: bundle, Open: func() (io.ReadCloser, error) { return os.Open(bundle) }},
	})
	var damaged *archive.DamagedError
	if !errors.As(err, &damaged) || !strings.Contains(err.Error(), bundle) {
		t.Fatalf("Serve with an altered bundle: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(paths.Root, "engine")); err != nil || len(left) != 1 { // the lock
		t.Errorf("left in the folder of bundles: %v, %v", left, err)
	}
}

// TestSecondEngine is refused in the same network namespace.
func TestSecondEngine(t *testing.T) {
	e := enginetest.Start(t)
	paths := native.Paths{Root: t.TempDir(), Run: filepath.Join(e.Paths.Run, "3")}
	err := native.Serve(t.Context(), native.ServeOptions{Paths: paths, Source: e.Service.Source, Log: e.Service.Log})
	var other *native.OtherEngineError
	if !errors.As(err, &other) {
		t.Fatalf("Serve beside another engine: %v", err)
	}
}

// TestUninstall removes an engine with its data.
func TestUninstall(t *testing.T) {
	e := enginetest.Start(t)
	stop(t, e, native.StopOptions{})
	t.Cleanup(func() { stopAndStart(e) })
	dir, err := os.MkdirTemp("/tmp", "du-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	service := *e.Service
	service.Paths = native.Paths{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run")}
	service.Env = append([]string{"DEV_ENGINETEST_ROOT=" + dir}, service.Env...)
	if _, err := service.Start(t.Context(), enginetest.Settings()); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.WithHost(service.Paths.Host()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	precious := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(precious, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	runWithFolder(t, c, filepath.Dir(precious))
	if _, err := service.Stop(t.Context(), native.StopOptions{KeepContainers: true}); err != nil {
		t.Fatal(err)
	}
	if err := service.Uninstall(t.Context(), native.UninstallOptions{Data: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{service.Paths.Root, service.Paths.Run} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
	if n := programs(t, "containerd-shim-runc-v2"); n != 0 {
		t.Errorf("%d shims are left", n)
	}
	if data, err := os.ReadFile(precious); err != nil || string(data) != "data" {
		t.Errorf("the user's file: %q, %v", data, err)
	}
}

// runWithFolder runs a container with a volume that is a folder of the user's,
// mounted below the engine's data.
func runWithFolder(t *testing.T, c *client.Client, dir string) {
	t.Helper()
	enginetest.BusyboxImage(t, c, image)
	_, err := c.VolumeCreate(t.Context(), client.VolumeCreateOptions{
		Name: "folder", Driver: "local", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": dir},
	})
	if err != nil {
		t.Fatal(err)
	}
	created, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Cmd: []string{"sleep", "1000"}},
		HostConfig: &container.HostConfig{Binds: []string{"folder:/data"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
}

// ip configures the network of the test's own namespace.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// TestPoolsAvoidRoutes: networks keep off what the host routes elsewhere, when
// the engine starts; a route that comes later is a problem that status names.
func TestPoolsAvoidRoutes(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	subnet := func(name string) netip.Prefix {
		got, err := c.NetworkInspect(t.Context(), name, client.NetworkInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return got.Network.IPAM.Config[0].Subnet
	}
	create := func(name string) {
		if _, err := c.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = c.NetworkRemove(context.Background(), name, client.NetworkRemoveOptions{}) })
	}
	create("before")
	kept := subnet("before")
	ip(t, "link", "add", "vpn0", "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", "vpn0").Run() })
	ip(t, "link", "set", "vpn0", "up")
	ip(t, "route", "add", "172.18.0.0/15", "dev", "vpn0")
	ip(t, "route", "add", "172.20.0.0/14", "dev", "vpn0")

	st := status(t, e)
	if problems := strings.Join(st.Problems, "\n"); !strings.Contains(problems, `network "before" (`+kept.String()+`) overlaps the host's route`) {
		t.Errorf("problems = %q", problems)
	}
	stop(t, e, native.StopOptions{KeepContainers: true})
	start(t, e)
	create("after")
	if got := subnet("after"); netip.MustParsePrefix("172.18.0.0/15").Overlaps(got) || netip.MustParsePrefix("172.20.0.0/14").Overlaps(got) {
		t.Errorf("a network got %s, which is routed elsewhere", got)
	}
	if got := subnet("before"); got != kept {
		t.Errorf("the network that was there has %s now, had %s", got, kept)
	}
}

// TestIPv6Network: containers can have IPv6, whatever the host's settings were.
func TestIPv6Network(t *testing.T) {
	e := enginetest.Start(t)
	c := e.Client(t)
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("the kernel has no IPv6")
	}
	yes := true
	if _, err := c.NetworkCreate(t.Context(), "six", client.NetworkCreateOptions{EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.NetworkRemove(context.Background(), "six", client.NetworkRemoveOptions{}) })
	enginetest.BusyboxImage(t, c, image)
	created, err := c.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &container.Config{Image: image, Cmd: []string{"sleep", "1000"}}, HostConfig: &container.HostConfig{NetworkMode: "six"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = c.ContainerRemove(context.Background(), created.ID, client.ContainerRemoveOptions{Force: true})
	})
	if _, err := c.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.ContainerInspect(t.Context(), created.ID, client.ContainerInspectOptions{})
	if err != nil || !got.Container.NetworkSettings.Networks["six"].GlobalIPv6Address.IsValid() {
		t.Errorf("the container has no IPv6 address (%v)", err)
	}
}

// TestForwardingGuard: a host that forwarded nothing does not become a router
// because containers need forwarding.
func TestForwardingGuard(t *testing.T) {
	enginetest.Start(t)
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(data)) != "1" {
		t.Fatalf("ip_forward = %q, %v", data, err)
	}
	out, err := exec.Command("nft", "list", "table", "inet", "dev-forward-guard").CombinedOutput()
	if err != nil {
		t.Skipf("nft: %v: %s", err, out) // iptables is in use, whose forward chain dockerd makes drop
	}
	for _, want := range []string{"iifkind", "oifkind", "bridge", "veth", "drop"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the guard lacks %q:\n%s", want, out)
		}
	}
}

// TestFollowLogs sees a line that is written later.
func TestFollowLogs(t *testing.T) {
	e := enginetest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := e.Service.Logs(ctx, w, native.LogOptions{Component: "supervisor", Tail: 0, Follow: true})
		_ = w.Close()
		ended <- err
	}()
	f, err := os.OpenFile(filepath.Join(e.Paths.LogDir(), "supervisor.log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(r)
	got := make(chan string, 100)
	go func() {
		defer close(got)
		for lines.Scan() {
			got <- lines.Text()
		}
	}()
	eventually(t, "the line is shown", func() bool { // written again until the watch stands
		if _, err := f.WriteString("a line for the test\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case line := <-got:
			return line == "a line for the test"
		default:
			return false
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Logs = %v", err)
	}
	for range got { // until the reader has ended
	}
}

func TestLogs(t *testing.T) {
	e := enginetest.Start(t)
	var out strings.Builder
	if err := e.Service.Logs(t.Context(), &out, native.LogOptions{Tail: -1}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"supervisor | ", "containerd | ", "dockerd    | ", "engine is ready", "API listen on"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("logs lack %q", want)
		}
	}
	if err := e.Service.Logs(t.Context(), &out, native.LogOptions{Component: "nginx"}); err == nil {
		t.Error("logs of a component that is none")
	}
}
