// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// envChild makes the test binary a stand-in for a supervised program.
const envChild = "SUPERVISE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(envChild) {
	case "":
		goleak.VerifyTestMain(m)
	case "supervisor":
		superviseUntilKilled()
	default:
		child(os.Getenv(envChild))
	}
}

// child is a program that does what its words say.
func child(script string) {
	hup := make(chan os.Signal, 1)
	term := make(chan os.Signal, 1)
	for word := range strings.FieldsSeq(script) {
		switch word {
		case "ready":
			signal.Notify(hup, syscall.SIGHUP)
			notify("READY=1")
		case "say":
			fmt.Println("some output")
			fmt.Fprintln(os.Stderr, "an error")
		case "fail":
			os.Exit(3)
		case "stubborn":
			signal.Ignore(syscall.SIGTERM)
		case "polite":
			signal.Notify(term, syscall.SIGTERM)
		}
	}
	for {
		select {
		case <-hup:
			notify("RELOADING=1\nMONOTONIC_USEC=1")
			notify("READY=1")
		case <-term:
			fmt.Println("bye")
			os.Exit(0)
		case <-time.After(time.Minute): // nobody stopped it: the test is gone
			os.Exit(1)
		}
	}
}

func notify(message string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		panic(err)
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		panic(err)
	}
	_ = conn.Close()
}

// program is a stand-in that does what the script says.
func program(t *testing.T, name, script string) Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Program{Name: name, Path: self, Env: []string{envChild + "=" + script}, Grace: 10 * time.Second, Log: Log{Path: filepath.Join(t.TempDir(), name+".log")}}
}

// runDir is short, because sockets are made in it.
func runDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func supervise(t *testing.T, programs ...Program) *Group {
	t.Helper()
	g, err := Start(slog.New(slog.DiscardHandler), runDir(t), programs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// await waits until a program's state is as wanted.
func await(t *testing.T, g *Group, i int, what string, holds func(State) bool) State {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := g.Changed()
		s := g.States()[i]
		if holds(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not within 30 s: %s; state %+v", what, s)
		}
	}
}

func TestReady(t *testing.T) {
	g := supervise(t, program(t, "a", "ready"), program(t, "b", "ready"))
	if err := g.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range g.States() {
		if s.Phase != Running || s.PID == 0 || s.Restarts != 0 || s.LastExit != nil {
			t.Errorf("state %+v", s)
		}
	}
}

func TestExitBeforeReady(t *testing.T) {
	g := supervise(t, program(t, "a", "ready"), program(t, "b", "say fail"))
	err := g.WaitReady(t.Context())
	var exited *ExitedError
	if !errors.As(err, &exited) || exited.Name != "b" || exited.Exit.Reason != "exit status 3" {
		t.Fatalf("WaitReady = %v", err)
	}
	if got := strings.Join(exited.Lines(), "|"); got != "some output|an error" {
		t.Errorf("lines = %q", got)
	}
}

func TestNeverReady(t *testing.T) {
	g := supervise(t, program(t, "a", "ready"), program(t, "b", "say"))
	await(t, g, 0, "a is ready", func(s State) bool { return s.Phase == Running })
	for len(g.components[1].program.Log.Tail(2, 0)) < 2 {
		time.Sleep(time.Millisecond)
	}
	cause := errors.New("too slow")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := g.WaitReady(ctx)
	var late *NotReadyError
	if !errors.As(err, &late) || !errors.Is(err, cause) || err.Error() != "b not ready: too slow" {
		t.Fatalf("WaitReady = %v", err)
	}
	if got := strings.Join(late.Lines(), "|"); got != "some output|an error" {
		t.Errorf("lines = %q", got)
	}
}

func TestCannotStart(t *testing.T) {
	broken := program(t, "a", "")
	broken.Path = filepath.Join(t.TempDir(), "none")
	unprepared := program(t, "a", "ready")
	cause := errors.New("no configuration")
	unprepared.Prepare = func() error { return cause }
	for want, p := range map[error]Program{os.ErrNotExist: broken, cause: unprepared} {
		g := supervise(t, p)
		if err := g.WaitReady(t.Context()); !errors.Is(err, want) {
			t.Errorf("WaitReady = %v, want %v", err, want)
		}
		g.Close()
	}
}

// TestRestart kills a program again and again: each time it comes back, and
// the state tells.
func TestRestart(t *testing.T) {
	g := supervise(t, program(t, "a", "say ready"))
	if err := g.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		before := g.States()[0]
		if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		now := await(t, g, 0, "it runs again", func(s State) bool { return s.Phase == Running && s.Restarts == i })
		if now.PID == before.PID || now.LastExit == nil || now.LastExit.Reason != "signal: killed" {
			t.Errorf("state %+v", now)
		}
		if got := strings.Join(now.LastExit.Log, "|"); got != "some output|an error" {
			t.Errorf("log of the last run = %q", got)
		}
	}
}

func TestReload(t *testing.T) {
	g := supervise(t, program(t, "a", "ready"), program(t, "b", "polite"))
	await(t, g, 0, "a is ready", func(s State) bool { return s.Phase == Running })
	if err := g.Reload(t.Context(), "a"); err != nil {
		t.Errorf("Reload = %v", err)
	}
	if err := g.Reload(t.Context(), "c"); err == nil {
		t.Error("Reload of a program that is none")
	}
	if err := g.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(t.Context(), "a"); err == nil {
		t.Error("Reload of a program that is stopped")
	}
}

func TestStop(t *testing.T) {
	polite, stubborn := program(t, "polite", "polite ready"), program(t, "stubborn", "stubborn ready")
	stubborn.Grace = 50 * time.Millisecond
	hurried := program(t, "hurried", "stubborn ready")
	hurried.Grace = 0
	g := supervise(t, polite, stubborn, hurried)
	if err := g.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"polite": t.Context(), "stubborn": t.Context(), "hurried": over} {
		if err := g.Stop(ctx, name); err != nil {
			t.Errorf("Stop(%s) = %v", name, err)
		}
	}
	for _, s := range g.States() {
		if s.Phase != Stopped || s.PID != 0 || s.Restarts != 0 {
			t.Errorf("state %+v", s)
		}
	}
	if got := polite.Log.Tail(1, 0); len(got) != 1 || got[0] != "bye" {
		t.Errorf("the polite program was not asked: %q", got)
	}
}

// TestStopWhileWaiting stops a program between two of its lives.
func TestStopWhileWaiting(t *testing.T) {
	g := supervise(t, program(t, "a", "fail"))
	await(t, g, 0, "it waits", func(s State) bool { return s.Phase == Waiting && s.Restarts > 1 })
	g.Close()
	if s := g.States()[0]; s.Phase != Stopped {
		t.Errorf("state %+v", s)
	}
}

// superviseUntilKilled is a supervisor that a test kills.
func superviseUntilKilled() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	dir := os.Getenv("SUPERVISE_TEST_DIR")
	g, err := Start(slog.New(slog.DiscardHandler), dir, Program{Name: "a", Path: self, Env: []string{envChild + "=polite ready"}, Log: Log{Path: filepath.Join(dir, "a.log")}})
	if err != nil {
		panic(err)
	}
	if err := g.WaitReady(context.Background()); err != nil {
		panic(err)
	}
	for range 100 { // threads come and go: the death signal must not be tied to one of these
		go runtime.LockOSThread()
	}
	fmt.Println(g.States()[0].PID)
	select {}
}

// TestSupervisorKilled: programs do not outlive a supervisor that is killed,
// and only then are told to end.
func TestSupervisorKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := runDir(t)
	cmd := exec.Command(self)
	cmd.Env = []string{envChild + "=supervisor", "SUPERVISE_TEST_DIR=" + dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a.log")); err != nil || len(data) > 0 {
		t.Fatalf("the program ended while its supervisor lived: %q, %v", data, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(dir, "a.log"))
		if err == nil && strings.Contains(string(data), "bye") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its supervisor", pid)
		}
	}
}
