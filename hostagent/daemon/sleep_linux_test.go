// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/network/networktest"
)

// newSleeper is a machine whose memory can be saved, with a server behind a port of each of its guests.
func newSleeper(t *testing.T) (m *fakeMachine, port string) {
	t.Helper()
	m = newFakeMachine(t)
	m.o.Memory = m.memory
	port = freePort(t, "tcp", "127.0.0.1")
	m.onBoot = func(g *networktest.Guest) { m.serveWords(g, netip.AddrPortFrom(m.at.Loopback, number(t, port))) }
	return m, port
}

// serveWords says a word to each who connects, and then keeps the connection open.
func (m *fakeMachine) serveWords(g *networktest.Guest, at netip.AddrPort) {
	m.t.Helper()
	l, err := g.Listen(at)
	if err != nil {
		m.t.Error(err)
		return
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, "word")
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	m.t.Cleanup(func() {
		l.Close()
		m.finish()
	})
}

// word connects to a published port and reads what is said there.
func word(t *testing.T, port string) (net.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 4)
	_, err = io.ReadFull(c, buf)
	return c, err
}

// mustWord is word where it must be said.
func mustWord(t *testing.T, port string) net.Conn {
	t.Helper()
	c, err := word(t, port)
	if err != nil {
		t.Fatalf("the published port: %v", err)
	}
	return c
}

// awaitCut waits for the end of a connection.
func awaitCut(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a connection of the old life hangs")
	}
}

func inPhase(p hostagent.Phase) func(*hostagent.Status) bool {
	return func(s *hostagent.Status) bool { return s.Phase == p }
}

func withPorts(n int) func(*hostagent.Status) bool {
	return func(s *hostagent.Status) bool { return s.Phase == hostagent.Running && len(s.Ports) == n }
}

// askEngine sends a request to the Docker API.
func (m *fakeMachine) askEngine(path string) (int, string) {
	m.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", m.o.Docker)
	}}}
	res, err := client.Get("http://docker" + path)
	if err != nil {
		m.t.Errorf("ask the engine: %v", err)
		return 0, ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

func TestSuspendAndResume(t *testing.T) {
	for name, old := range map[string]bool{"a present image": false, "an image without a fast link": true} {
		t.Run(name, func(t *testing.T) { suspendAndResume(t, old) })
	}
}

func suspendAndResume(t *testing.T, old bool) {
	m, port := newSleeper(t)
	m.old = old
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.run()
	m.await("the port", withPorts(1))
	before := mustWord(t, port)
	if err := m.client.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := m.await("the sleep", inPhase(hostagent.Suspended))
	if s.Asleep || s.VMPID != 0 || len(s.Problems) > 0 {
		t.Errorf("status %+v", s)
	}
	awaitCut(t, before)
	saved := m.memory.kept()
	if saved == nil || !saved.Suspended {
		t.Fatalf("saved %+v", saved)
	}
	var noted notes
	if err := json.Unmarshal(saved.Notes, &noted); err != nil || len(noted.LinkSecret) == 0 || noted.MAC != networktest.MAC {
		t.Errorf("noted %+v, %v", noted, err)
	}
	// Nobody wakes it but who says so.
	if code, text := m.askEngine("/_ping"); code != http.StatusServiceUnavailable || !strings.Contains(text, "dev machine resume test") {
		t.Errorf("the engine of a suspended machine: %d, %s", code, text)
	}
	if _, err := word(t, port); err == nil {
		t.Error("a port of a suspended machine is served")
	}
	if booted, _ := m.guests(); booted != 1 {
		t.Errorf("%d guests", booted)
	}
	if err := m.client.Suspend(t.Context()); err != nil {
		t.Errorf("suspend again: %v", err)
	}
	if err := m.client.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.await("the machine to go on", withPorts(1))
	mustWord(t, port)
	if code, _ := m.askEngine("/_ping"); code != http.StatusOK {
		t.Errorf("the engine answers %d", code)
	}
	if booted, restored := m.guests(); booted != 2 || restored != 1 || m.memory.consumed != 1 {
		t.Errorf("%d guests, %d restored, %d consumed", booted, restored, m.memory.consumed)
	}
	if p := m.thawed[0]; p.Seed == nil || p.Seed.Hostname != "fake" || len(p.Entropy) == 0 || p.Time.IsZero() || slices.Equal(p.Seed.LinkSecret, noted.LinkSecret) {
		t.Errorf("the guest was told %+v", p)
	}
	if err := m.client.Resume(t.Context()); err != nil {
		t.Errorf("resume what runs: %v", err)
	}
}

// TestSleepAndWake: the first who comes wakes the machine, and several at once do no harm.
func TestSleepAndWake(t *testing.T) {
	m, _ := newSleeper(t)
	m.o.SleepAfter = 50 * time.Millisecond
	m.begin()
	for round := range 3 {
		m.await("the sleep", func(s *hostagent.Status) bool { return s.Phase == hostagent.Suspended && s.Asleep })
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if code, text := m.askEngine("/version"); code != http.StatusOK {
					t.Errorf("round %d: the engine answers %d, %s", round, code, text)
				}
			})
		}
		all.Wait()
	}
	if booted, restored := m.guests(); restored != booted-1 || restored < 3 {
		t.Errorf("%d guests, %d restored", booted, restored)
	}
	if m.memory.kept() != nil && m.memory.kept().Suspended {
		t.Error("a machine that slept without containers counts as suspended")
	}
}

// TestSleepWithContainers: the user wants it so, and the first connection to a published port wakes them.
func TestSleepWithContainers(t *testing.T) {
	m, port := newSleeper(t)
	m.o.SleepAfter, m.o.SleepContainers = 50*time.Millisecond, true
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.begin()
	m.await("the sleep", inPhase(hostagent.Suspended))
	c := mustWord(t, port)
	if _, restored := m.guests(); restored != 1 {
		t.Errorf("%d restored", restored)
	}
	_ = c.Close()
	m.await("the next sleep", inPhase(hostagent.Suspended))
}

// TestWhatKeepsAwake: containers, connections to ports and SSH, and requests of the Docker API that have no end; but not connections that were left open.
func TestWhatKeepsAwake(t *testing.T) {
	for name, use := range map[string]func(*testing.T, *fakeMachine, string) (end func()){
		"a container": func(_ *testing.T, m *fakeMachine, _ string) func() {
			m.await("the port", withPorts(1))
			return func() { m.vm.engine.stop("web") }
		},
		"attach": func(t *testing.T, m *fakeMachine, _ string) func() {
			c, err := net.Dial("unix", m.o.Docker)
			if err != nil {
				t.Fatal(err)
			}
			hijack(t, c)
			return func() { c.Close() }
		},
		"events": func(t *testing.T, m *fakeMachine, _ string) func() {
			c, err := net.Dial("unix", m.o.Docker)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "GET /v1.52/events HTTP/1.1\r\nHost: docker\r\n\r\n")
			if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			return func() { c.Close() }
		},
		"a login": func(t *testing.T, m *fakeMachine, _ string) func() {
			c, err := net.Dial("tcp", m.await("the port", func(s *hostagent.Status) bool { return s.SSH != "" }).SSH)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			return func() { c.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, port := newSleeper(t)
			m.o.SleepAfter = 300 * time.Millisecond
			if name == "a container" {
				m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
			}
			m.begin()
			m.await("the sockets", func(s *hostagent.Status) bool { return s.Docker != "" && s.SSH != "" })
			end := use(t, m, port) // which wakes a machine that was quicker
			before, _ := m.guests()
			time.Sleep(3 * m.o.SleepAfter)
			s, err := m.client.Status(t.Context())
			if after, _ := m.guests(); err != nil || s.Phase != hostagent.Running || after != before {
				t.Errorf("the machine fell asleep: %+v, %v", s, err)
			}
			end()
			m.await("the sleep", inPhase(hostagent.Suspended))
		})
	}
}

// TestIdleClientsAreClosed: a client of the Docker API that keeps its connection does not keep the machine awake.
func TestIdleClientsAreClosed(t *testing.T) {
	m, _ := newSleeper(t)
	m.o.SleepAfter = 200 * time.Millisecond
	m.begin()
	m.await("the socket", func(s *hostagent.Status) bool { return s.Docker != "" })
	c, err := net.Dial("unix", m.o.Docker)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /version HTTP/1.1\r\nHost: docker\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	m.await("the sleep", inPhase(hostagent.Suspended))
	awaitCut(t, c)
}

// TestSomebodyComesWhileItFallsAsleep: in time, so that the VM goes on, or too late, so that it is restored at once.
func TestSomebodyComesWhileItFallsAsleep(t *testing.T) {
	for name, inTime := range map[string]bool{"in time": true, "too late": false} {
		t.Run(name, func(t *testing.T) {
			m, _ := newSleeper(t)
			m.o.SleepAfter = 50 * time.Millisecond
			saving, come := make(chan struct{}), make(chan struct{})
			first := true
			m.vm.suspending = func(ctx context.Context) error {
				if !first {
					return nil
				}
				first = false
				close(saving)
				<-come
				if !inTime {
					return nil
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}
			m.begin()
			<-saving
			answered := make(chan int, 1)
			go func() {
				code, _ := m.askEngine("/version")
				answered <- code
			}()
			if inTime {
				close(come)
			} else {
				time.AfterFunc(100*time.Millisecond, func() { close(come) })
			}
			if code := <-answered; code != http.StatusOK {
				t.Errorf("the engine answers %d", code)
			}
			_, restored := m.guests()
			if inTime && m.memory.consumed != 0 || !inTime && m.memory.consumed == 0 || restored == 0 {
				t.Errorf("%d restored, %d consumed", restored, m.memory.consumed)
			}
		})
	}
}

func TestSuspendFails(t *testing.T) {
	m, port := newSleeper(t)
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.vm.suspending = func(context.Context) error { return errors.New("no space left on device") }
	m.run()
	m.await("the port", withPorts(1))
	err := m.client.Suspend(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	m.await("the machine to go on", withPorts(1))
	mustWord(t, port)
	if booted, _ := m.guests(); booted != 1 {
		t.Errorf("%d guests", booted)
	}
}

func TestSuspendEndsTheVM(t *testing.T) {
	m, port := newSleeper(t)
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	vm := m.vm
	m.vm.suspending = func(context.Context) error {
		vm.off()
		return errors.New("the VM crashed")
	}
	m.run()
	if err := m.client.Suspend(t.Context()); err == nil || !strings.Contains(err.Error(), "crashed") {
		t.Errorf("got %v", err)
	}
	m.await("the machine to boot", withPorts(1))
	mustWord(t, port)
	if booted, restored := m.guests(); booted != 2 || restored != 0 {
		t.Errorf("%d guests, %d restored", booted, restored)
	}
}

// TestVMEndsBeforeItIsSaved: a VM that dies while its guest gets ready is noticed at once, not when the guest has not answered for long.
func TestVMEndsBeforeItIsSaved(t *testing.T) {
	m, port := newSleeper(t)
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	vm := m.vm
	m.freeze = func() error {
		vm.off()
		<-t.Context().Done() // it never answers
		return nil
	}
	m.run()
	if err := m.client.Suspend(t.Context()); err == nil || !strings.Contains(err.Error(), errGone.Error()) {
		t.Errorf("got %v", err)
	}
	m.await("the machine to boot", withPorts(1))
	mustWord(t, port)
}

// TestMemoryIsLost: whatever becomes of the memory, the machine is there again, and says why it booted.
func TestMemoryIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(*fakeMachine)
		why  string
	}{
		"dropped": {func(m *fakeMachine) { m.memory.refuse = "the disk has changed" }, "the disk has changed"},
		"not restored": {func(m *fakeMachine) {
			start := m.o.Start
			m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
				if l.State != "" {
					return nil, errors.New("QEMU refused it")
				}
				return start(ctx, l)
			}
		}, "QEMU refused it"},
		"not committed": {func(m *fakeMachine) { m.memory.commit = errors.New("disk full") }, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			m, port := newSleeper(t)
			c.lose(m)
			m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
			m.run()
			told := make(chan struct{})
			following, followed := make(chan struct{}), make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				defer close(followed)
				begun, once := sync.OnceFunc(func() { close(following) }), sync.OnceFunc(func() { close(told) })
				_ = m.client.Events(ctx, func(e hostagent.Event) {
					begun()
					if e.Kind == "log" && strings.Contains(e.Text, c.why) {
						once()
					}
				})
			}()
			defer func() { cancel(); <-followed }()
			<-following
			if err := m.client.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.client.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.await("the machine to boot", withPorts(1))
			mustWord(t, port)
			if booted, restored := m.guests(); booted != 2 || restored != 0 {
				t.Errorf("%d guests, %d restored", booted, restored)
			}
			select {
			case <-told:
			case <-time.After(patience):
				t.Error("nobody was told why")
			}
		})
	}
}

// TestEndsWhileSuspended: kill leaves nothing, the host's shutdown leaves the memory, a stop has containers stopped first.
func TestEndsWhileSuspended(t *testing.T) {
	for name, c := range map[string]struct {
		end        func(*fakeMachine) error
		containers bool
		kept       bool
		orders     []string
	}{
		"kill":               {func(m *fakeMachine) error { return m.client.Kill(context.Background()) }, true, false, nil},
		"host shutdown":      {func(m *fakeMachine) error { m.cancel(); return nil }, true, true, nil},
		"stop":               {func(m *fakeMachine) error { return m.client.Stop(context.Background(), time.Minute) }, false, true, nil},
		"stop of containers": {func(m *fakeMachine) error { return m.client.Stop(context.Background(), time.Minute) }, true, true, []string{"stop web"}},
		"cold stop":          {func(m *fakeMachine) error { return m.client.StopCold(context.Background(), time.Minute) }, false, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m, port := newSleeper(t)
			if c.containers {
				m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
			}
			m.run()
			if err := m.client.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.end(m); err != nil {
				t.Fatal(err)
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
			if kept := m.memory.kept() != nil; kept != c.kept {
				t.Errorf("memory kept: %v", kept)
			}
			if got := m.vm.engine.orders(); !slices.Equal(got, c.orders) {
				t.Errorf("containers: %q, want %q", got, c.orders)
			}
		})
	}
}

func TestKillWhileSuspending(t *testing.T) {
	m, _ := newSleeper(t)
	saving := make(chan struct{})
	m.vm.suspending = func(ctx context.Context) error {
		close(saving)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	m.run()
	suspended := make(chan error, 1)
	go func() { suspended <- m.client.Suspend(context.Background()) }()
	<-saving
	if err := m.client.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
	<-suspended
	if _, killed := m.vm.was(); !killed || m.memory.kept() != nil {
		t.Errorf("killed %v, memory %+v", killed, m.memory.kept())
	}
}

// TestStopLeavesMemory: containers are stopped in order, those that an engine would start again are started again at the next start, and nothing else.
func TestStopLeavesMemory(t *testing.T) {
	m, _ := newSleeper(t)
	e := m.vm.engine
	for id, policy := range map[string]container.RestartPolicyMode{"db": "always", "app": "unless-stopped", "job": "on-failure", "once": "no"} {
		e.start(id, nil)
		e.policies[id] = policy
	}
	e.labels["db"] = map[string]string{labelProject: "p", labelService: "db"}
	e.labels["app"] = map[string]string{labelProject: "p", labelService: "app", labelDependsOn: "db:service_started:false"}
	m.run()
	if err := m.client.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Fatal(err)
	}
	saved := m.memory.kept()
	if saved == nil || saved.Suspended {
		t.Fatalf("saved %+v", saved)
	}
	orders := e.orders()
	if len(orders) != 4 || slices.Index(orders, "stop app") > slices.Index(orders, "stop db") {
		t.Errorf("stopped: %q", orders)
	}
	if pressed, killed := m.vm.was(); pressed || killed {
		t.Error("the machine was turned off")
	}

	m.run()
	m.await("the containers", func(*hostagent.Status) bool {
		_, err := os.Stat(m.file("containers.json"))
		return errors.Is(err, os.ErrNotExist)
	})
	started := e.orders()[4:]
	if len(started) != 3 || slices.Index(started, "start db") > slices.Index(started, "start app") || slices.Contains(started, "start once") {
		t.Errorf("started: %q", started)
	}
	if booted, restored := m.guests(); booted != 2 || restored != 1 {
		t.Errorf("%d guests, %d restored", booted, restored)
	}
}

// noted are the names of the containers that the next start starts again.
func (m *fakeMachine) noted() []string {
	list, err := (&agent{o: Options{Containers: m.file("containers.json")}}).notedContainers()
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// note has containers that do not run started again at the next start, one after the other.
func (m *fakeMachine) note(ids ...string) {
	var list []toStartItem
	for i, id := range ids {
		m.vm.engine.exited[id] = nil
		m.vm.engine.policies[id] = "unless-stopped"
		list = append(list, toStartItem{ID: id, Name: id, Wave: i})
	}
	if err := (&agent{o: Options{Containers: m.file("containers.json")}}).writeContainers(list); err != nil {
		m.t.Fatal(err)
	}
}

// TestStartOfContainersFails: to the engine, a container that was stopped for the machine's stop was stopped on purpose. It is tried again at the next start.
func TestStartOfContainersFails(t *testing.T) {
	m, _ := newSleeper(t)
	e := m.vm.engine
	m.note("bad", "good")
	tried := make(chan string, 2)
	e.starting = func(_ context.Context, id string) error {
		tried <- id
		if id == "bad" {
			return errors.New("what it needs is not there yet")
		}
		return nil
	}
	m.run()
	for range 2 {
		select {
		case <-tried:
		case <-time.After(patience):
			t.Fatal("not all are started")
		}
	}
	m.await("what is started", func(*hostagent.Status) bool { return slices.Equal(m.noted(), []string{"bad"}) })
}

// TestStopWhileContainersStart: no container is started behind the back of a stop, and all are started at the next start.
func TestStopWhileContainersStart(t *testing.T) {
	m, _ := newSleeper(t)
	e := m.vm.engine
	m.note("slow", "next")
	e.start("runs", nil)
	e.policies["runs"] = "unless-stopped"
	starting, stopping := make(chan struct{}), make(chan struct{})
	e.starting = func(ctx context.Context, id string) error {
		if id != "slow" {
			return nil
		}
		close(starting)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stopping:
			return nil
		}
	}
	e.stopping = func(string) { close(stopping) }
	m.run()
	<-starting
	if err := m.client.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Fatal(err)
	}
	if got := m.noted(); !slices.Equal(got, []string{"next", "runs", "slow"}) {
		t.Errorf("noted: %q", got)
	}
	if got := e.orders(); !slices.Equal(got, []string{"stop runs"}) {
		t.Errorf("containers: %q", got)
	}
}

// TestVMEndsWhileItStops: a VM that dies while its containers are stopped is noticed at once, not when its engine has not answered for the whole grace.
func TestVMEndsWhileItStops(t *testing.T) {
	m, _ := newSleeper(t)
	vm := m.vm
	vm.engine.start("web", nil)
	vm.engine.stopping = func(string) {
		vm.off()
		<-t.Context().Done() // it never answers
	}
	m.run()
	if err := m.client.Stop(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if m.memory.kept() != nil {
		t.Errorf("memory %+v", m.memory.kept())
	}
}

// TestStopFallsBack: a machine that cannot be saved is turned off in order, and what is to be started again is not forgotten.
func TestStopFallsBack(t *testing.T) {
	m, _ := newSleeper(t)
	m.vm.engine.start("db", nil)
	m.vm.engine.policies["db"] = "always"
	m.vm.suspending = func(context.Context) error { return errors.New("no space left on device") }
	m.run()
	if err := m.client.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if pressed, killed := m.vm.was(); pressed || killed || m.memory.kept() != nil {
		t.Errorf("pressed %v, killed %v, memory %+v", pressed, killed, m.memory.kept())
	}
	if _, err := os.Stat(m.file("containers.json")); err != nil {
		t.Error(err)
	}
}

// TestStopOfSwarmTasks: they would be started elsewhere, so the machine is turned off.
func TestStopOfSwarmTasks(t *testing.T) {
	m, _ := newSleeper(t)
	m.vm.engine.start("task", nil)
	m.vm.engine.labels["task"] = map[string]string{labelTask: "x"}
	m.run()
	if err := m.client.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if m.memory.kept() != nil || len(m.vm.engine.orders()) != 0 {
		t.Errorf("memory %+v, containers %q", m.memory.kept(), m.vm.engine.orders())
	}
}

func TestSuspendWithoutMemory(t *testing.T) {
	m := newFakeMachine(t)
	m.run()
	if err := m.client.Suspend(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot be saved") {
		t.Errorf("got %v", err)
	}
}

// fakeTemplates is a memory that wants a template.
type fakeTemplates struct {
	*fakeMemory
	wanted bool
	paused int
	made   *Saved
	fail   error
}

func (f *fakeTemplates) Template(context.Context) (string, bool) {
	return f.file + ".template", f.wanted
}
func (f *fakeTemplates) Paused(context.Context) error { f.paused++; return f.fail }

func (f *fakeTemplates) CommitTemplate(_ context.Context, s Saved) error {
	f.made, f.wanted = &s, false
	return nil
}

// TestTemplate: the first boot leaves a state of a guest that is nobody's, goes on as itself, and a machine that starts from it becomes itself as well.
func TestTemplate(t *testing.T) {
	m, port := newSleeper(t)
	templates := &fakeTemplates{fakeMemory: m.memory, wanted: true}
	m.o.Memory = templates
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.run()
	m.await("the port", withPorts(1))
	mustWord(t, port)
	if templates.made == nil || templates.paused != 1 {
		t.Fatalf("no template: %+v", templates)
	}
	var noted notes
	if err := json.Unmarshal(templates.made.Notes, &noted); err != nil {
		t.Fatal(err)
	}
	stranger, self := m.thawed[0].Seed, m.thawed[1].Seed
	if len(m.thawed) != 2 || stranger.HostKey == m.keys.HostKey || self.HostKey != m.keys.HostKey || string(noted.LinkSecret) != string(stranger.LinkSecret) || noted.Login == "" {
		t.Errorf("the guest was told to be %+v, and then %+v; noted %+v", stranger, self, noted)
	}
	if _, host, err := noted.keys(m.o); err != nil || host == nil {
		t.Errorf("the noted keys: %v", err)
	}
	if err := m.client.StopCold(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := m.end(); err != nil {
		t.Fatal(err)
	}

	// The guest of the template knows the stranger's secret and keys only.
	if err := os.WriteFile(m.file("secret"), noted.LinkSecret, 0o600); err != nil {
		t.Fatal(err)
	}
	m.memory.saved = &Saved{Template: true, Notes: templates.made.Notes}
	m.run()
	m.await("the port", withPorts(1))
	mustWord(t, port)
	if booted, told := m.guests(); booted != 2 || told != 3 {
		t.Errorf("%d guests, told %d times", booted, told)
	}
}

// TestTemplateFails: the machine starts all the same.
func TestTemplateFails(t *testing.T) {
	m, port := newSleeper(t)
	templates := &fakeTemplates{fakeMemory: m.memory, wanted: true, fail: errors.New("disk full")}
	m.o.Memory = templates
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.run()
	m.await("the port", withPorts(1))
	mustWord(t, port)
	if booted, _ := m.guests(); booted != 1 || templates.made != nil || len(m.memory.drops) == 0 {
		t.Errorf("%d guests, %+v", booted, templates)
	}
}

// TestEndsWhileRestored: a machine whose memory is being restored comes up before it is stopped, so that its containers are stopped in order; a kill does not
// wait for that.
func TestEndsWhileRestored(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(*fakeMachine) error
		orders []string
		kept   bool
	}{
		"stop":          {func(m *fakeMachine) error { return m.client.Stop(context.Background(), time.Minute) }, []string{"stop web"}, true},
		"host shutdown": {func(m *fakeMachine) error { m.cancel(); return nil }, []string{"stop web"}, true},
		"stop then kill": {func(m *fakeMachine) error {
			return errors.Join(m.client.Stop(context.Background(), time.Minute), m.client.Kill(context.Background()))
		}, nil, false},
		"kill": {func(m *fakeMachine) error { return m.client.Kill(context.Background()) }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, port := newSleeper(t)
			m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
			m.run()
			if err := m.client.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.cancel() // this computer is turned off
			if err := m.end(); err != nil {
				t.Fatal(err)
			}
			start, loading, proceed := m.o.Start, make(chan struct{}), make(chan struct{})
			m.o.Start = func(ctx context.Context, l hostagent.Link) (hostagent.VM, error) {
				close(loading)
				select {
				case <-proceed:
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
				return start(ctx, l)
			}
			m.begin()
			<-loading
			if err := c.end(m); err != nil {
				t.Fatal(err)
			}
			if c.kept {
				close(proceed)
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
			if got := m.vm.engine.orders(); !slices.Equal(got, c.orders) {
				t.Errorf("containers: %q, want %q", got, c.orders)
			}
			saved := m.memory.kept()
			if (saved != nil) != c.kept || saved != nil && saved.Suspended {
				t.Errorf("memory %+v", saved)
			}
		})
	}
}

// TestContainersOfTheLastMoment: what counts is whether containers run when the memory is saved, not a moment before.
func TestContainersOfTheLastMoment(t *testing.T) {
	for name, starts := range map[string]bool{"one is started": true, "one ends": false} {
		t.Run(name, func(t *testing.T) {
			m, port := newSleeper(t)
			if !starts {
				m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
			}
			m.run()
			if !starts {
				m.await("the port", withPorts(1))
			}
			m.freeze = func() error {
				if starts {
					m.vm.engine.start("web", nil)
				} else {
					m.vm.engine.stop("web")
				}
				return nil
			}
			if err := m.client.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
			if saved := m.memory.kept(); saved == nil || saved.Suspended != starts {
				t.Fatalf("saved %+v", saved)
			}
			if err := m.client.Stop(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := m.end(); err != nil {
				t.Error(err)
			}
			if stopped := slices.Contains(m.vm.engine.orders(), "stop web"); stopped != starts {
				t.Errorf("containers: %q", m.vm.engine.orders())
			}
		})
	}
}

// TestAContainerComesWhileItFallsAsleep: it does not sleep with the machine, unless that is wanted.
func TestAContainerComesWhileItFallsAsleep(t *testing.T) {
	m, _ := newSleeper(t)
	m.o.SleepAfter = 50 * time.Millisecond
	first := make(chan struct{})
	once := sync.OnceFunc(func() { close(first) })
	m.freeze = func() error {
		m.vm.engine.start("late", nil)
		once()
		return nil
	}
	m.begin()
	<-first
	m.await("the machine to go on", inPhase(hostagent.Running))
	if booted, _ := m.guests(); booted != 1 || m.memory.kept() != nil {
		t.Errorf("%d guests, saved %+v", booted, m.memory.kept())
	}
}

// TestSavingInVain: memory that could not be restored is not saved, and the machine goes on.
func TestSavingInVain(t *testing.T) {
	m, port := newSleeper(t)
	m.vm.engine.start("web", published("80/tcp", "127.0.0.1", port))
	m.memory.vain = errors.New("another QEMU")
	m.run()
	if err := m.client.Suspend(t.Context()); err == nil || !strings.Contains(err.Error(), "another QEMU") {
		t.Errorf("Suspend: %v", err)
	}
	m.await("the machine to go on", withPorts(1))
	mustWord(t, port)
	if booted, _ := m.guests(); booted != 1 {
		t.Errorf("%d guests", booted)
	}
}
