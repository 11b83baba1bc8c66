// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/engine/native"
)

// The stages of an isolated test binary: the process that `go test` starts
// runs stage init, which is process 1 of the new namespaces and runs stage run
// (the tests); the engine's supervisor is stage serve.
const (
	stageInit  = "init"
	stageRun   = "run"
	stageServe = "serve"
)

// Option changes what Isolate isolates.
type Option int

// HostNetwork keeps the host's network, so that containers reach the outside.
// One such test binary runs at a time on a machine; others wait for it.
const HostNetwork Option = 1

// Isolate runs this test binary again inside its own namespaces and ends the
// process with its exit code. Inside it returns, and so it does where
// isolating is impossible: Start then skips the tests.
func Isolate(options ...Option) {
	switch os.Getenv(envStage) {
	case stageInit:
		os.Exit(runInit())
	case stageServe:
		os.Exit(runServe())
	case stageRun:
		return
	}
	if !isTestBinary() || impossible() != "" {
		return
	}
	hostNetwork := len(options) > 0 && options[0] == HostNetwork
	code, err := runOuter(hostNetwork)
	if err != nil {
		// not isolated: the tests that need an engine say why they are skipped
		_ = os.Setenv(envReason, err.Error()) // of this test process alone
		return
	}
	os.Exit(code)
}

// isTestBinary tells the binary from a copy of it that testscript runs as a
// command under another name.
func isTestBinary() bool {
	name := filepath.Base(os.Args[0])
	return strings.HasSuffix(name, ".test") || strings.HasPrefix(name, "__debug_bin")
}

// impossible says why there can be no engine here; empty when there can.
func impossible() string {
	if os.Geteuid() != 0 {
		return "only root can run it"
	}
	if _, err := native.FindSource(os.Getenv, moduleProgram()); err != nil {
		return err.Error()
	}
	return ""
}

// unavailable says why Start cannot start one; empty when it can.
func unavailable() string {
	if os.Getenv(envStage) == stageRun {
		return ""
	}
	if reason := impossible(); reason != "" {
		return reason
	}
	if reason := os.Getenv(envReason); reason != "" {
		return reason
	}
	return "TestMain does not call enginetest.Isolate"
}

// runOuter runs stage init and cleans up after it.
func runOuter(hostNetwork bool) (code int, err error) {
	if hostNetwork {
		unlock, err := lockHost()
		if err != nil {
			return 0, err
		}
		defer unlock()
		if err := native.CheckAlone(testPaths()); err != nil { // it would not be seen from inside
			return 0, err
		}
	}
	sweepBundles()
	// short, because unix sockets are made below it
	dir, err := os.MkdirTemp("/tmp", "de-")
	if err != nil {
		return 0, err
	}
	defer func() {
		sweepCgroups("/" + filepath.Base(dir))
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	runtime.LockOSThread() // the child's death signal is tied to this thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envStage+"="+stageInit, envDir+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS)
	if hostNetwork {
		cmd.Env = append(cmd.Env, envNetwork+"=host")
	} else {
		flags |= syscall.CLONE_NEWNET
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("make namespaces: %w", err)
	}
	quit := forward(cmd.Process)
	defer quit()
	err = cmd.Wait()
	if hostNetwork {
		sweepNetwork()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// forward passes on the signals that end a test run.
func forward(p *os.Process) (quit func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-ch:
				_ = p.Signal(sig) // it may have ended
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}

// runInit is process 1: it prepares the namespaces, runs the tests, reaps
// orphans, and takes everything down with it when the tests end.
func runInit() int {
	if os.Getpid() != 1 {
		return 1 // somebody else set the variable: never start ourselves again and again
	}
	if err := prepareNamespaces(); err != nil {
		fmt.Fprintf(os.Stderr, "enginetest: prepare namespaces: %v\n", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintf(os.Stderr, "enginetest: %v\n", err)
		return 1
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envStage+"=") })
	env = append(env, envStage+"="+stageRun)
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "enginetest: %v\n", err)
		return 1
	}
	defer forward(tests)()
	code := reap(tests.Pid)
	if os.Getenv(envNetwork) == "host" {
		stopEngine() // in order, because its networks are in the host's
	}
	return code
}

// reap waits for all children until the given one has ended, and returns its
// exit code.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal())
		case ended == pid:
			return status.ExitStatus()
		}
	}
}

func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if os.Getenv(envNetwork) == "host" {
		return nil
	}
	if err := mountSys(); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	return loopbackUp()
}

// mountSys mounts the /sys of the new network, with the control groups of the
// old one in it.
func mountSys() error {
	const groups = "/sys/fs/cgroup"
	keep := os.Getenv(envDir)
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{groups, keep, "", unix.MS_BIND | unix.MS_REC},
		{"sysfs", "/sys", "sysfs", 0},
		{keep, groups, "", unix.MS_BIND | unix.MS_REC},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	return unix.Unmount(keep, unix.MNT_DETACH)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// stopEngine removes all containers and ends the engine.
func stopEngine() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	removeContainers(ctx)
	s := &native.Service{Paths: testPaths(), Log: slog.New(slog.DiscardHandler)}
	if _, err := s.Stop(ctx, native.StopOptions{}); err != nil {
		fmt.Fprintf(os.Stderr, "enginetest: stop the engine: %v\n", err)
	}
}

// removeContainers kills what the tests left, without any grace.
func removeContainers(ctx context.Context) {
	c, err := client.New(client.WithHost(testPaths().Host()))
	if err != nil {
		return
	}
	defer c.Close()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return // no test started it
	}
	for _, item := range list.Items {
		_, _ = c.ContainerRemove(ctx, item.ID, client.ContainerRemoveOptions{Force: true}) // best effort: the stop that follows waits for what is left
	}
}

// runServe is the engine's supervisor.
func runServe() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	source, err := native.FindSource(os.Getenv, moduleProgram())
	if err == nil {
		err = native.Serve(ctx, native.ServeOptions{Paths: testPaths(), Source: source, Notify: os.Getenv("NOTIFY_SOCKET"), Log: log})
	}
	if err != nil {
		log.Error("serve", "error", err)
		return 1
	}
	return 0
}

// lockHost waits until no other test binary uses the host's network for an
// engine.
func lockHost() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "dev-enginetest-host.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// sweepBundles removes unpacked bundles that are too old for a test to use.
func sweepBundles() {
	entries, err := os.ReadDir(cacheDir())
	if err != nil {
		return // there is none yet
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(filepath.Join(cacheDir(), e.Name())) // best effort: it is a cache
		}
	}
}

// sweepNetwork removes what a killed engine leaves in the host's network.
func sweepNetwork() {
	devices, err := filepath.Glob("/sys/class/net/*/bridge")
	if err != nil {
		return
	}
	for _, d := range devices {
		name := filepath.Base(filepath.Dir(d))
		if name == "docker0" || name == "docker_gwbridge" || strings.HasPrefix(name, "br-") && len(name) == 15 {
			_ = exec.Command("ip", "link", "delete", name).Run() // best effort
		}
	}
	for _, table := range []string{"ip docker-bridges", "ip6 docker-bridges", "inet dev-forward-guard"} {
		_ = exec.Command("nft", "delete table "+table).Run() // there may be none
	}
}

// sweepCgroups removes the empty control groups of containers that were
// killed.
func sweepCgroups(parent string) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	for _, root := range append(roots, "/sys/fs/cgroup"+parent) {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // groups vanish while we look
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = os.Remove(dirs[i])
		}
	}
}
