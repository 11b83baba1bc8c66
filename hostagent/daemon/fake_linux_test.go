// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/network"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/network"
	"github.com/seed71221737/dev/hostagent/network/networktest"
	guestagent "github.com/seed71221737/dev/vmimage/guest/agent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(crowdVariable); address != "" {
		if err := beCrowd(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is what anything may take on a busy machine.
const patience = 60 * time.Second

// fakeVM is a machine without a virtual machine: a TCP/IP stack on the agent's network socket, the guest's real agent in it, and a fake engine.
type fakeVM struct {
	t      testing.TB
	guest  *networktest.Guest
	engine *fakeEngine
	done   chan struct{}
	off    func() // once
	err    error

	ignorePowerOff, ignoreButton bool
	pressed, killed              bool
	mu                           sync.Mutex
	card                         net.Conn
	// suspending is called before the memory is saved; its error is Suspend's.
	suspending func(context.Context) error
}

// Suspend saves a few bytes.
func (v *fakeVM) Suspend(ctx context.Context, file string, still func(context.Context) error) error {
	if v.suspending != nil {
		if err := v.suspending(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(os.WriteFile(file, []byte("memory"), 0o600), still(ctx)); err != nil {
		return err
	}
	v.off()
	return nil
}

func (v *fakeVM) Done() <-chan struct{} { return v.done }
func (v *fakeVM) Err() error            { return v.err }
func (v *fakeVM) PID() int              { return 0 }

func (v *fakeVM) PowerOff(context.Context) error {
	v.mu.Lock()
	v.pressed = true
	v.mu.Unlock()
	if !v.ignoreButton {
		v.off()
	}
	return nil
}

func (v *fakeVM) Kill(context.Context) error {
	v.mu.Lock()
	v.killed = true
	v.mu.Unlock()
	v.off()
	return nil
}

func (v *fakeVM) was() (pressed, killed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pressed, v.killed
}

// Snapshot saves a few bytes, and goes on.
func (v *fakeVM) Snapshot(ctx context.Context, file string, paused func(context.Context) error) error {
	if err := paused(ctx); err != nil {
		return err
	}
	return os.WriteFile(file, []byte("template"), 0o600)
}

// fakeMachine is a folder with a fakeVM in it.
type fakeMachine struct {
	t      *testing.T
	dir    string
	o      Options
	vm     *fakeVM
	at     network.Addresses
	client *hostagent.Client
	ended  chan error
	cancel context.CancelFunc
	finish func()
	memory *fakeMemory
	old    bool // an image without a fast link
	full   bool // its fast link lets nobody in
	keys   proto.Seed
	// onBoot is called for each guest, before its agent serves; booted counts the guests, thawed tells what they were told after a restoration.
	onBoot func(*networktest.Guest)
	grow   func(ctx context.Context, bytes int64) error // the guest's
	mu     sync.Mutex
	booted int
	thawed []proto.AfterRestore
	// freeze is what the guest does before it is saved.
	freeze func() error
}

// guests is how many guests there were so far, and how many of them were restored.
func (m *fakeMachine) guests() (booted, restored int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.booted, len(m.thawed)
}

// fakeMemory keeps at most one state, as long as the test.
type fakeMemory struct {
	file string

	mu       sync.Mutex
	saved    *Saved
	taken    bool
	refuse   string // why the next Take finds nothing
	commit   error  // of Commit
	vain     error  // of New
	still    bool   // the disk was, before the VM ended
	consumed int
	drops    []string
}

func (f *fakeMemory) Take(context.Context) (Saved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != "" && f.saved != nil {
		defer func() { f.saved, f.refuse = nil, "" }()
		return Saved{Why: f.refuse}, nil
	}
	if f.saved == nil {
		return Saved{}, nil
	}
	f.taken = true
	s := *f.saved
	s.File = f.file
	return s, nil
}

func (f *fakeMemory) Consume(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saved == nil || !f.taken {
		return errors.New("nothing was taken")
	}
	f.saved, f.taken = nil, false
	f.consumed++
	return nil
}

func (f *fakeMemory) New(context.Context) (string, func(context.Context) error, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.still = false
	return f.file, func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.still = true
		return nil
	}, f.vain
}

func (f *fakeMemory) Commit(_ context.Context, s Saved) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.commit != nil {
		return f.commit
	}
	if _, err := os.Stat(f.file); err != nil {
		return err
	}
	if !f.still {
		return errors.New("the disk was never still")
	}
	f.saved = &s
	return nil
}

func (f *fakeMemory) Drop(_ context.Context, why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved, f.taken = nil, false
	f.drops = append(f.drops, why)
	return nil
}

// kept is the state that is there, or nil.
func (f *fakeMemory) kept() *Saved {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saved
}

func newFakeMachine(t *testing.T) *fakeMachine {
	t.Helper()
	dir, err := os.MkdirTemp("", "ha")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &fakeMachine{t: t, dir: dir, at: network.Plan(netip.MustParsePrefix("192.168.127.0/24"))}
	if err := os.WriteFile(m.file("shell"), []byte("#!/bin/sh\nexec cat >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	login, _ := newKeyPair(t)
	host, hostPEM := newKeyPair(t)
	m.vm = newFakeVM(t)
	m.vm.engine = newFakeEngine(t, filepath.Join(dir, "engine.sock"))
	m.memory = &fakeMemory{file: m.file("memory")}
	m.freeze = func() error { return nil }
	m.keys = proto.Seed{HostKey: hostPEM, AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(login.PublicKey()))}}
	m.o = Options{
		Machine: "test", RunLock: m.file("run.lock"), Control: m.file("agent.sock"), Docker: m.file("docker.sock"), Network: m.file("net.sock"),
		Console: m.file("console"), Seed: m.file("seed"), MAC: networktest.MAC, Key: login, HostKey: host.PublicKey(),
		WriteSeed: m.writeSeed, Logger: slog.New(slog.DiscardHandler), StopGrace: patience,
		Start: func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
			if m.booted > 0 { // the memory of the last one
				next := newFakeVM(t)
				next.engine = m.vm.engine
				m.vm = next
			}
			if l.Loaded != nil {
				if err := l.Loaded(ctx); err != nil {
					return nil, err
				}
			}
			m.boot(l, hostPEM, login)
			return m.vm, nil
		},
		engineSocket: filepath.Join(dir, "engine.sock"),
	}
	m.client = hostagent.Dial(m.o.Control)
	return m
}

// writeSeed writes as much of a seed as the agent reads back.
func (m *fakeMachine) writeSeed(p SeedParts) error {
	seed := m.keys
	seed.Hostname, seed.LinkSecret, seed.Time = "fake", p.LinkSecret, p.Time
	disk, err := proto.EncodeSeed(seed)
	if err != nil {
		return err
	}
	return os.WriteFile(m.o.Seed, disk, 0o600)
}

func newFakeVM(t testing.TB) *fakeVM {
	v := &fakeVM{t: t, done: make(chan struct{})}
	v.off = sync.OnceFunc(func() {
		close(v.done)
		if v.card != nil {
			_ = v.card.Close()
		}
	})
	return v
}

func (m *fakeMachine) file(name string) string { return filepath.Join(m.dir, name) }

// boot attaches the guest and starts its agent.
func (m *fakeMachine) boot(l hostagent.Link, hostPEM string, login ssh.Signer) {
	card, err := net.Dial("unix", l.Network)
	if err != nil {
		m.t.Error(err)
		return
	}
	vm := m.vm
	vm.card = card
	vm.guest = networktest.NewGuest(m.t, card, m.at.Gateway, mtu, m.at.Guest, m.at.Loopback)
	m.mu.Lock()
	m.booted++
	m.mu.Unlock()
	if m.onBoot != nil {
		m.onBoot(vm.guest)
	}
	listener, err := vm.guest.Listen(netip.AddrPortFrom(m.at.Guest, 22))
	if err != nil {
		m.t.Error(err)
		return
	}
	server := &guestagent.Server{
		// Its shell only takes its input: what the guest is set up with is not for this system.
		HostKey: []byte(hostPEM), AuthorizedKeys: ssh.MarshalAuthorizedKey(login.PublicKey()), Shell: m.file("shell"), AgentSocket: m.file("keys.sock"),
		Log: slog.New(slog.DiscardHandler),
		Control: &guestagent.Control{Program: "fake", StatusFile: m.file("status.json"), LogDir: m.dir, DataDir: m.dir, Docker: m.o.engineSocket, Power: func(bool) error {
			if !vm.ignorePowerOff {
				vm.off()
			}
			return nil
		}, Mount: func(proto.Mount) error { return nil }, Grow: m.grow, Freeze: func() error { return m.freeze() }},
	}
	server.Control.Thaw = func(p proto.AfterRestore) (proto.AfterRestored, error) { return m.thaw(server, p) }
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	if !m.old {
		m.serveFast(ctx, vm.guest, server.Control, l.State == "")
	}
	m.t.Cleanup(func() {
		m.finish() // asks the guest, which is to be there still
		cancel()
		<-served
	})
}

// thaw notes what a restored guest is told, and has it be what it is told to be.
func (m *fakeMachine) thaw(server *guestagent.Server, p proto.AfterRestore) (proto.AfterRestored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.thawed = append(m.thawed, p)
	if p.Seed == nil {
		return proto.AfterRestored{}, nil
	}
	err := server.Renew([]byte(p.Seed.HostKey), []byte(strings.Join(p.Seed.AuthorizedKeys, "\n")), nil)
	return proto.AfterRestored{}, errors.Join(err, os.WriteFile(m.file("secret"), p.Seed.LinkSecret, 0o600))
}

// serveFast serves the fast link. A guest that boots knows the seed's secret, one that is restored its old one.
func (m *fakeMachine) serveFast(ctx context.Context, g *networktest.Guest, control *guestagent.Control, boots bool) {
	if boots {
		f, err := os.Open(m.o.Seed)
		if err != nil {
			return // a test without seeds
		}
		defer f.Close()
		seed, err := proto.DecodeSeed(f)
		if err == nil {
			err = os.WriteFile(m.file("secret"), seed.LinkSecret, 0o600)
		}
		if err != nil {
			m.t.Error(err)
			return
		}
	}
	l, err := g.Listen(netip.AddrPortFrom(m.at.Guest, proto.FastPort))
	if err != nil {
		m.t.Error(err)
		return
	}
	if m.full {
		go refuseAll(l)
		m.t.Cleanup(func() { l.Close() })
		return
	}
	fast := &guestagent.Fast{SecretFile: m.file("secret"), Log: slog.New(slog.DiscardHandler), Services: map[string]func(context.Context, net.Conn, string){
		proto.FastDocker: guestagent.FastSocket(m.o.engineSocket), proto.FastControl: guestagent.FastControl(control),
	}}
	served := make(chan error, 1)
	go func() { served <- fast.Serve(ctx, l) }()
	m.t.Cleanup(func() {
		l.Close()
		<-served
	})
}

// refuseAll closes every connection.
func refuseAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// begin starts the agent.
func (m *fakeMachine) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.ended = make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		m.ended <- Run(ctx, m.o)
	}()
	m.finish = func() {
		cancel()
		<-finished
	}
	m.t.Cleanup(m.finish)
}

// run starts the agent and waits until the machine runs.
func (m *fakeMachine) run() {
	m.t.Helper()
	m.begin()
	m.await("the machine to run", func(s *hostagent.Status) bool { return s.Phase == hostagent.Running })
}

// await waits for a status.
func (m *fakeMachine) await(what string, ok func(*hostagent.Status) bool) *hostagent.Status {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s, err := m.client.Status(context.Background())
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("wait for %s: %+v, %v", what, s, err)
		}
		select {
		case err := <-m.ended:
			m.t.Fatalf("wait for %s: the agent ended: %v", what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end waits for the agent's end.
func (m *fakeMachine) end() error {
	m.t.Helper()
	select {
	case err := <-m.ended:
		m.ended <- err
		return err
	case <-time.After(patience):
		m.t.Fatal("the agent does not end")
		return nil
	}
}

// fakeEngine is what the agent asks of the Docker API, on a unix socket.
type fakeEngine struct {
	mu         sync.Mutex
	containers map[string]api.PortMap // that run
	exited     map[string]api.PortMap // that do not
	policies   map[string]container.RestartPolicyMode
	labels     map[string]map[string]string
	stopping   func(id string) // called for each that is stopped
	// starting is called for each that is started; an error refuses.
	starting func(ctx context.Context, id string) error
	ordered  []string // "stop a", "start a", in order
	streams  map[chan events.Message]bool
	past     []events.Message
	asked    []string // what was asked about containers and events, in order
	// beforeEvents is called after a stream of events was begun and before its first event; failures is how many inspections fail.
	beforeEvents func()
	failures     int
}

func newFakeEngine(t testing.TB, socket string) *fakeEngine {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{
		containers: map[string]api.PortMap{}, exited: map[string]api.PortMap{}, policies: map[string]container.RestartPolicyMode{},
		labels: map[string]map[string]string{}, streams: map[chan events.Message]bool{},
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: patience}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return e
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.52")
	w.Header().Set("Content-Type", "application/json")
	switch name := filepath.Base(r.URL.Path); {
	case name == "_ping":
	case name == "version":
		_ = json.NewEncoder(w).Encode(map[string]string{"Version": "99.1", "ApiVersion": "1.52"})
	case name == "events":
		e.stream(w, r)
	case name == "echo": // hijacked, as attach is
		e.echo(w)
	case name == "json" && filepath.Base(filepath.Dir(r.URL.Path)) == "containers":
		e.mu.Lock()
		defer e.mu.Unlock()
		e.asked = append(e.asked, "list")
		list := []container.Summary{}
		for id := range e.containers {
			list = append(list, container.Summary{ID: id, Names: []string{"/" + id}, State: container.StateRunning, Labels: e.labels[id]})
		}
		for id := range e.exited {
			if r.URL.Query().Get("all") != "" {
				list = append(list, container.Summary{ID: id, Names: []string{"/" + id}, State: container.StateExited, Labels: e.labels[id]})
			}
		}
		_ = json.NewEncoder(w).Encode(list)
	case name == "json":
		e.inspect(w, filepath.Base(filepath.Dir(r.URL.Path)))
	case name == "stop" || name == "start":
		if name == "start" && e.starting != nil && e.starting(r.Context(), filepath.Base(filepath.Dir(r.URL.Path))) != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		e.order(name, filepath.Base(filepath.Dir(r.URL.Path)))
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

func (e *fakeEngine) inspect(w http.ResponseWriter, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, "inspect "+id)
	if e.failures > 0 {
		e.failures--
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	ports, running := e.containers[id]
	_, exited := e.exited[id]
	if !running && !exited {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	state := &container.State{Running: running, StartedAt: "2026-01-01T00:00:00Z"}
	if exited {
		state.ExitCode = 143
	}
	_ = json.NewEncoder(w).Encode(container.InspectResponse{
		ID: id, Name: "/" + id, State: state, NetworkSettings: &container.NetworkSettings{Ports: ports},
		HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: e.policies[id]}},
	})
}

// order stops or starts a container.
func (e *fakeEngine) order(what, id string) {
	e.mu.Lock()
	e.ordered = append(e.ordered, what+" "+id)
	ports, running := e.containers[id]
	if !running {
		ports = e.exited[id]
	}
	hook := e.stopping
	e.mu.Unlock()
	if what == "stop" && hook != nil {
		hook(id)
	}
	switch {
	case what == "stop" && running:
		e.change(events.ActionDie, id, func() {
			delete(e.containers, id)
			e.exited[id] = ports
		})
	case what == "start" && !running:
		e.change(events.ActionStart, id, func() {
			delete(e.exited, id)
			e.containers[id] = ports
		})
	}
}

// orders are what was stopped and started so far.
func (e *fakeEngine) orders() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.ordered)
}

func (e *fakeEngine) stream(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	if e.beforeEvents != nil {
		e.beforeEvents() // the real engine, too, answers before it begins to collect
	}
	c := make(chan events.Message, 16)
	e.mu.Lock()
	e.asked = append(e.asked, "events")
	if r.URL.Query().Get("since") != "" {
		for _, m := range e.past {
			c <- m
		}
	}
	e.streams[c] = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.streams, c)
		e.mu.Unlock()
	}()
	for {
		select {
		case <-r.Context().Done():
			return
		case m := <-c:
			_ = json.NewEncoder(w).Encode(m)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// echo sends back what it gets until the client has said all, and then says goodbye.
func (e *fakeEngine) echo(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	_, _ = io.Copy(conn, buf)
	_, _ = io.WriteString(conn, "bye")
}

// start starts a container with published ports; stop ends it.
func (e *fakeEngine) start(id string, ports api.PortMap) {
	e.change(events.ActionStart, id, func() { e.containers[id] = ports })
}

func (e *fakeEngine) stop(id string) {
	e.change(events.ActionDie, id, func() { delete(e.containers, id) })
}

func (e *fakeEngine) change(action events.Action, id string, f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	m := events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: id}}
	e.past = append(e.past, m)
	for c := range e.streams {
		c <- m
	}
}

// questions are what was asked so far.
func (e *fakeEngine) questions() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

// published is a port map with one binding.
func published(port, hostIP, hostPort string) api.PortMap {
	b := api.PortBinding{HostPort: hostPort}
	if hostIP != "" {
		b.HostIP = netip.MustParseAddr(hostIP)
	}
	return api.PortMap{api.MustParsePort(port): {b}}
}
