// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/machine/drivertest"
	"github.com/seed71221737/dev/machine/qemu"
	"github.com/seed71221737/dev/machine/saved"
	"github.com/seed71221737/dev/machine/sparse"
	"github.com/seed71221737/dev/vmimage"
)

// The tests in this package run whole machines with stand-ins: this test binary plays QEMU (drivertest), the host agent (serveAgent) and the
// command line (runCommand), each in processes of its own that can be killed.

// How a stand-in agent behaves, in the environment variable agentVariable.
const (
	agentVariable = "DEV_TEST_STANDIN_AGENT"
	agentGood     = ""
	agentSilent   = "silent" // takes the run lock and does not listen
	agentHung     = "hung"   // listens and does not answer
	agentFails    = "fails"  // fails at a stage
	agentDies     = "dies"   // ends before it answers
	agentStuck    = "stuck"  // takes orders and does nothing
	agentSlow     = "slow"   // takes its time between stages
	agentSleeps   = "sleeps" // saves memory: for suspend, and when it stops
	agentUnwell   = "unwell" // starts, and its guest has a problem
	agentStays    = "stays"  // never gets beyond a stage
	agentLoses    = "loses"  // has its VM end while its disk is copied
)

// agentWith makes an agent behave so only while its machine has that image.
func agentWith(how, image string) string { return how + ":" + image }

func TestMain(m *testing.M) {
	drivertest.StandIn()
	if filepath.Base(os.Args[0]) == "virtiofsd" {
		time.Sleep(10 * time.Minute)
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "stand-in-agent":
			os.Exit(exit(serveAgent(openStore(os.Args[2]), os.Args[3])))
		case "stand-in-cli":
			os.Exit(exit(runCommand(openStore(os.Args[2]), os.Args[3:])))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// openStore opens the store in a home with stand-ins for everything outside.
func openStore(home string) *machine.Store {
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	images := &vmimage.Store{Dir: filepath.Join(home, "machine-images")}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return &machine.Store{
		Dir: filepath.Join(home, "machines"), Images: images,
		Drivers: map[string]machine.Driver{"qemu": &qemu.Driver{Images: images, State: home, Logger: log, Program: program}},
		Agent:   []string{program, "stand-in-agent", home},
		Logger:  log,
	}
}

// runCommand is a command line of machines: create, start, stop, kill, rm, restart, upgrade, rollback, save and restore of one machine.
func runCommand(s *machine.Store, args []string) error {
	ctx := context.Background()
	sink := func(e machine.Event) { fmt.Println(e.Text) }
	if args[0] == "create" {
		_, err := s.Create(ctx, args[1], testSpec(), machine.CreateOptions{}, sink)
		return err
	}
	m, err := s.Get(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "start":
		return m.Start(ctx, sink)
	case "stop":
		return m.Stop(ctx, machine.StopOptions{Timeout: 30 * time.Second}, sink)
	case "suspend":
		return m.Suspend(ctx, sink)
	case "resume":
		return m.Resume(ctx, sink)
	case "kill":
		return m.Kill(ctx, sink)
	case "restart":
		return m.Restart(ctx, machine.StopOptions{}, sink)
	case "rm":
		return m.Remove(ctx, machine.RemoveOptions{}, sink)
	case "upgrade":
		_, err := m.Upgrade(ctx, machine.UpgradeOptions{Image: args[2]}, sink)
		return err
	case "rollback":
		_, err := m.Upgrade(ctx, machine.UpgradeOptions{Rollback: true}, sink)
		return err
	case "save":
		_, err := m.SaveSnapshot(ctx, machine.SnapshotOptions{Name: args[2]}, sink)
		return err
	case "shrink":
		_, err := m.Shrink(ctx, 512, sink)
		return err
	case "compact":
		return m.Compact(ctx, sink)
	case "restore":
		_, err := m.RestoreSnapshot(ctx, args[2], machine.RestoreOptions{Stop: true}, sink)
		return err
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func testSpec() machine.Spec {
	return machine.Spec{Driver: "qemu", Arch: "amd64", Accelerator: "tcg", CPUs: 1, MemoryMiB: 512, DiskMiB: 512, Image: "test"}
}

// standInAgent is as much of a host agent as package machine sees.
type standInAgent struct {
	mu     sync.Mutex
	status hostagent.Status
	news   chan struct{} // closed at each change
	orders chan string
	keeper *saved.Keeper // nil: it saves no memory
	done   chan error    // answers to suspend and resume
	wake   func() (hostagent.VM, error)
}

// serveAgent holds the run lock, serves the control socket, and runs the VM.
func serveAgent(s *machine.Store, name string) error {
	how, image, some := strings.Cut(os.Getenv(agentVariable), ":")
	if some {
		if m, err := s.Get(name); err == nil && m.Spec.Image != image {
			how = agentGood
		}
	}
	if how == agentDies {
		return errors.New("the stand-in agent was told to die")
	}
	m, err := s.Get(name)
	if err != nil {
		return err
	}
	lock := flock.New(m.Dir.RunLock())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if ok, err := lock.TryLockContext(ctx, 20*time.Millisecond); !ok {
		return fmt.Errorf("another agent runs: %w", err)
	}
	defer lock.Unlock()
	if how == agentSilent {
		select {}
	}
	a := &standInAgent{status: hostagent.Status{Version: 1, Machine: name, Phase: hostagent.Starting, AgentPID: os.Getpid()}, news: make(chan struct{}), orders: make(chan string, 8), done: make(chan error, 1)}
	if how == agentSleeps {
		a.keeper = &saved.Keeper{Dir: m.Dir.Memory(), Disk: m.Dir.DataDisk(), Facts: m.MemoryFacts, Logger: s.Logger}
	}
	os.Remove(m.Dir.Control())
	listener, err := net.Listen("unix", m.Dir.Control())
	if err != nil {
		return err
	}
	if how == agentHung {
		select {}
	}
	server := &http.Server{Handler: a.handler(m, how)}
	go server.Serve(listener)
	err = a.run(s, m, how)
	done, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(done))
}

func (a *standInAgent) set(phase hostagent.Phase, stage hostagent.Stage, problem string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Phase, a.status.Stage = phase, stage
	if problem != "" {
		a.status.Problems = append(a.status.Problems, hostagent.Problem{Code: "test", Text: problem})
	}
	close(a.news)
	a.news = make(chan struct{})
}

func (a *standInAgent) get() (hostagent.Status, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.news
}

func (a *standInAgent) handler(m *machine.Machine, how string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) {
		problems := []hostagent.Problem{{Code: "port-taken", Text: "is nobody's fault"}}
		if how == agentUnwell {
			problems = append(problems, hostagent.Problem{Code: "guest", Text: "the guest feels ill"})
		}
		json.NewEncoder(w).Encode(problems)
	})
	mux.HandleFunc("POST /v1/copy-disk", func(w http.ResponseWriter, r *http.Request) {
		if how == agentLoses {
			http.Error(w, "QEMU ended: signal: killed", http.StatusGone)
			return
		}
		if err := sparse.Copy(r.Context(), r.URL.Query().Get("to"), m.Dir.DataDisk()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := a.get()
		json.NewEncoder(w).Encode(status)
	})
	mux.HandleFunc("GET /v1/events", a.events)
	mux.HandleFunc("POST /v1/suspend", a.ordered(m, "suspend"))
	mux.HandleFunc("POST /v1/resume", a.ordered(m, "resume"))
	mux.HandleFunc("POST /v1/stop", func(http.ResponseWriter, *http.Request) {
		if status, _ := a.get(); status.Phase == hostagent.Starting { // the real agent breaks the start off, also that of a suspended machine
			_ = os.WriteFile(filepath.Join(string(m.Dir), "broken-off"), nil, 0o600)
		}
		a.set(hostagent.Stopping, "", "")
		a.orders <- "stop"
	})
	mux.HandleFunc("POST /v1/kill", func(http.ResponseWriter, *http.Request) { a.set(hostagent.Stopping, "", ""); a.orders <- "kill" })
	return mux
}

func (a *standInAgent) events(w http.ResponseWriter, r *http.Request) {
	for {
		status, news := a.get()
		e := hostagent.Event{Time: time.Now(), Kind: "phase", Phase: status.Phase, Stage: status.Stage}
		if status.Phase == hostagent.Starting {
			e.Kind = "stage"
		}
		if n := len(status.Problems); n > 0 {
			e.Problem = &status.Problems[n-1]
		}
		if json.NewEncoder(w).Encode(e) != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		if status.Phase == hostagent.Stopped || status.Phase == hostagent.Failed {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// run starts the VM, waits for its end or an order, and ends it.
func (a *standInAgent) run(s *machine.Store, m *machine.Machine, how string) error {
	ctx := context.Background()
	driver := s.Drivers[m.Spec.Driver]
	vm, err := a.start(ctx, driver, m)
	if err != nil {
		a.set(hostagent.Failed, hostagent.StageProcess, err.Error())
		return err
	}
	for _, stage := range []hostagent.Stage{hostagent.StageLink, hostagent.StageEngine, hostagent.StageForwards} {
		a.set(hostagent.Starting, stage, "")
		if how == agentSlow {
			time.Sleep(50 * time.Millisecond)
		}
		if how == agentStays && stage == hostagent.StageEngine {
			<-vm.Done()
			a.set(hostagent.Failed, stage, "the VM ended")
			return errors.New("the VM ended")
		}
		if how == agentFails && stage == hostagent.StageEngine {
			failed := errors.New("the engine did not answer")
			err := vm.Kill(ctx)
			a.set(hostagent.Failed, stage, failed.Error())
			return errors.Join(err, failed) // it is logged, as the real agent's is
		}
	}
	a.mu.Lock()
	a.status.Docker, a.status.SSH = "unix://"+m.Dir.Docker(), "127.0.0.1:1"
	a.mu.Unlock()
	a.set(hostagent.Running, "", "")
	if how == agentStuck {
		select {}
	}
	return a.serve(ctx, vm)
}

func (a *standInAgent) start(ctx context.Context, driver machine.Driver, m *machine.Machine) (hostagent.VM, error) {
	a.set(hostagent.Starting, hostagent.StageProcess, "")
	vm, err := driver.(machine.Finder).Find(ctx, m.Dir)
	if err != nil {
		return nil, err
	}
	if vm != nil {
		if err := machine.EndVM(ctx, vm, 10*time.Second); err != nil {
			return nil, err
		}
	}
	link := hostagent.Link{Network: m.Dir.Network(), MAC: "52:54:00:00:00:01", Seed: m.Dir.Seed(), Console: m.Dir.Console()}
	os.Remove(link.Network)
	listener, err := net.Listen("unix", link.Network)
	if err != nil {
		return nil, err
	}
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			defer conn.Close()
		}
	}()
	if err := errors.Join(os.WriteFile(link.Seed, make([]byte, 1<<20), 0o600), machine.GrowDisk(m.Dir.DataDisk(), m.Spec.DiskMiB)); err != nil {
		return nil, err
	}
	a.wake = func() (hostagent.VM, error) { return a.startFrom(ctx, driver, m, link) }
	return a.wake()
}

func (a *standInAgent) serve(ctx context.Context, vm hostagent.VM) error {
	for {
		select {
		case <-vm.Done():
			a.set(hostagent.Stopped, "", "")
			return vm.Err()
		case order := <-a.orders:
			if order == "resume" {
				a.done <- nil
				continue
			}
			if a.keeper != nil && order != "kill" {
				next, err := a.sleep(ctx, vm, order)
				if next == nil || err != nil {
					return err
				}
				vm = next
				continue
			}
			if order == "kill" {
				if err := vm.Kill(ctx); err != nil {
					return err
				}
			} else if err := vm.PowerOff(ctx); err != nil {
				return err
			}
		}
	}
}

// home is a folder with a store and an image, short enough for sockets.
type home struct {
	t     *testing.T
	dir   string
	store *machine.Store
}

// patience bounds every wait of a test on a machine with much else to do.
const patience = 2 * time.Minute

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "mch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newHomeIn(t, dir)
}

func newHomeIn(t *testing.T, dir string) *home {
	t.Helper()
	h := &home{t: t, dir: dir, store: openStore(dir)}
	drivertest.Image(t, h.store.Images, "amd64", "test")
	t.Setenv(drivertest.StandInVariable, drivertest.StandInGood)
	t.Setenv(agentVariable, agentGood)
	t.Cleanup(h.end)
	return h
}

// end removes what the test made, with the product's own means, and looks for what is left.
func (h *home) end() {
	list, err := h.store.List()
	if err != nil {
		h.t.Errorf("List at the end: %v", err)
	}
	for _, m := range list {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := m.Remove(ctx, machine.RemoveOptions{Force: true}, nil); err != nil {
			h.t.Errorf("Remove at the end: %v", err)
		}
		cancel()
	}
	h.noProcess()
}

// noProcess fails for processes with the home's folder in their arguments.
func (h *home) noProcess() {
	h.t.Helper()
	for _, p := range h.processes("") {
		h.t.Errorf("process %d is left: %q", p.PID, p.Args)
		_ = p.Kill(context.Background())
	}
}

func (h *home) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *home) create(name string) *machine.Machine {
	h.t.Helper()
	m, err := h.store.Create(h.ctx(), name, testSpec(), machine.CreateOptions{}, nil)
	if err != nil {
		h.t.Fatalf("create: %v", err)
	}
	return m
}

func (h *home) start(m *machine.Machine) {
	h.t.Helper()
	if err := m.Start(h.ctx(), nil); err != nil {
		h.t.Fatalf("start: %v%s", err, details(err))
	}
}

// details is what a failed start brings along.
func details(err error) string {
	var failed *machine.StartError
	if errors.As(err, &failed) {
		return "\nlog: " + strings.Join(failed.Log, "\n") + "\nconsole: " + strings.Join(failed.Console, "\n")
	}
	return ""
}

// phase waits for a phase: a process that was killed takes a moment to be gone.
func (h *home) phase(m *machine.Machine, want machine.Phase) machine.Status {
	h.t.Helper()
	ctx := h.ctx()
	for {
		status := m.Status(ctx)
		if status.Phase == want {
			return status
		}
		if ctx.Err() != nil {
			h.t.Fatalf("phase is %q, want %q; problems: %v", status.Phase, want, status.Problems)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
