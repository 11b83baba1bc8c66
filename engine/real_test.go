// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/enginetest"
)

const busybox = "busybox:engine-test"

// real is a project on a real engine.
type real struct {
	t *testing.T
	*Client
	ctx     context.Context
	project string
}

func newReal(t *testing.T) *real {
	t.Helper()
	e := enginetest.Start(t)
	enginetest.BusyboxImage(t, e.Client(t), busybox)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	return &real{t: t, Client: openClient(t, Options{Host: e.Host, ConfigDir: t.TempDir()}), ctx: ctx, project: name}
}

// apply carries out one operation and fails the test if it fails.
func (r *real) apply(op compose.Op) compose.Result {
	r.t.Helper()
	res, err := r.Do(r.ctx, op, nil, compose.Discard)
	if err != nil {
		r.t.Fatalf("%s: %v", op.Kind, err)
	}
	return res
}

// spec is a service's container that runs a shell script; change may change it.
func (r *real) spec(service, script string, change func(*compose.ContainerSpec)) compose.ContainerSpec {
	s := compose.ContainerSpec{
		Name: r.project + "-" + service + "-1",
		Config: &container.Config{Image: busybox, Cmd: []string{"sh", "-c", script}, Labels: map[string]string{
			compose.LabelProject: r.project, compose.LabelService: service, compose.LabelContainerNumber: "1", compose.LabelOneOff: "False",
		}},
		Host: &container.HostConfig{NetworkMode: "none"},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func (r *real) create(service, script string, change func(*compose.ContainerSpec)) compose.Ref {
	r.t.Helper()
	s := r.spec(service, script, change)
	return compose.Ref{ID: r.apply(compose.Op{Kind: compose.OpCreateContainer, Service: service, Container: &s}).ID}
}

func (r *real) start(ref compose.Ref) {
	r.t.Helper()
	r.apply(compose.Op{Kind: compose.OpStartContainer, Ref: ref})
}

// run creates and starts.
func (r *real) run(service, script string, change func(*compose.ContainerSpec)) compose.Ref {
	r.t.Helper()
	ref := r.create(service, script, change)
	r.start(ref)
	return ref
}

func (r *real) observe() compose.Snapshot {
	r.t.Helper()
	snap, err := r.Observe(r.ctx, compose.Query{Project: r.project, Images: []string{busybox}})
	if err != nil {
		r.t.Fatal(err)
	}
	return snap
}

// container observes one service's container.
func (r *real) container(service string) compose.Container {
	r.t.Helper()
	for _, c := range r.observe().Containers {
		if c.Service() == service {
			return c
		}
	}
	return compose.Container{}
}

func health(test string) func(*compose.ContainerSpec) {
	return func(s *compose.ContainerSpec) {
		s.Config.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD-SHELL", test}, Interval: 200 * time.Millisecond, StartInterval: 50 * time.Millisecond, StartPeriod: time.Second, Retries: 2,
		}
	}
}

func TestRealLifecycle(t *testing.T) {
	r := newReal(t)
	own := map[string]string{compose.LabelProject: r.project, compose.LabelNetwork: "default"}
	netOp := compose.Op{Kind: compose.OpCreateNetwork, Network: &compose.NetworkSpec{Name: r.project + "_default", Driver: "bridge", Labels: own}}
	volOp := compose.Op{Kind: compose.OpCreateVolume, Volume: &compose.VolumeSpec{CreateRequest: volume.CreateRequest{Name: r.project + "_data", Labels: own}}}
	net1, net2 := r.apply(netOp), r.apply(netOp)
	if net1.ID == "" || net1.ID != net2.ID {
		t.Errorf("networks %q and %q", net1.ID, net2.ID)
	}
	if a, b := r.apply(volOp), r.apply(volOp); a.ID != r.project+"_data" || a.ID != b.ID {
		t.Errorf("volumes %q and %q", a.ID, b.ID)
	}
	onNetwork := func(s *compose.ContainerSpec) {
		s.Host.NetworkMode = container.NetworkMode(r.project + "_default")
		s.Host.Binds = []string{r.project + "_data:/data"}
		s.Networks = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{r.project + "_default": {Aliases: []string{"web"}}}}
	}
	ref := r.create("web", "trap 'exit 0' TERM; cat /etc/conf/greeting; while :; do sleep 0.1; done", onNetwork)
	r.apply(compose.Op{Kind: compose.OpCopyFiles, Ref: ref, Files: []compose.File{{Path: "/etc/conf/greeting", Content: []byte("hello\n"), UID: 7, GID: 8, Mode: 0o440}}})
	if s := r.spec("web", "true", onNetwork); true {
		s.Config.Labels[compose.LabelConfigHash] = "other"
		if _, err := r.Do(r.ctx, compose.Op{Kind: compose.OpCreateContainer, Container: &s}, nil, compose.Discard); err == nil || !strings.Contains(err.Error(), "is taken by container") {
			t.Errorf("a second container of the name: %v", err)
		}
	}
	r.start(ref)
	r.start(ref)
	c := r.container("web")
	if c.State != compose.StateRunning || c.Networks[r.project+"_default"] != net1.ID || c.Labels[compose.LabelImage] == "" || len(c.Mounts) != 1 {
		t.Errorf("running: %+v", c)
	}
	if img := r.observe().Images[busybox]; img.ID != c.ImageID || c.Labels[compose.LabelImage] != img.ID || !strings.HasPrefix(img.Platform, "linux/") {
		t.Errorf("image %+v of container with %q, label %q", img, c.ImageID, c.Labels[compose.LabelImage])
	}
	var out bytes.Buffer
	if err := r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"stat", "-c", "%u:%g %a", "/etc/conf/greeting"}, Streams: Streams{Out: &out}}); err != nil || out.String() != "7:8 440\n" {
		t.Errorf("copied file: %q, %v", &out, err)
	}
	r.lifecycleEnd(ref)
	for _, op := range []compose.Op{
		{Kind: compose.OpRemoveNetwork, Ref: compose.Ref{ID: net1.ID}}, {Kind: compose.OpRemoveNetwork, Ref: compose.Ref{ID: net1.ID}},
		{Kind: compose.OpRemoveVolume, Ref: compose.Ref{ID: r.project + "_data"}}, {Kind: compose.OpRemoveVolume, Ref: compose.Ref{ID: r.project + "_data"}},
	} {
		r.apply(op)
	}
	if snap := r.observe(); len(snap.Containers)+len(snap.Networks)+len(snap.Volumes) != 0 {
		t.Errorf("left over: %+v", snap)
	}
}

// lifecycleEnd takes a running container through all states to its removal, each operation twice.
func (r *real) lifecycleEnd(ref compose.Ref) {
	r.t.Helper()
	grace := 5 * time.Second
	for _, step := range []struct {
		op   compose.Op
		want compose.State
	}{
		{compose.Op{Kind: compose.OpPauseContainer}, compose.StatePaused},
		{compose.Op{Kind: compose.OpUnpauseContainer}, compose.StateRunning},
		{compose.Op{Kind: compose.OpRestartContainer, Timeout: &grace}, compose.StateRunning},
		{compose.Op{Kind: compose.OpRenameContainer, Name: r.project + "-renamed"}, compose.StateRunning},
		{compose.Op{Kind: compose.OpStopContainer, Timeout: &grace}, compose.StateExited},
		{compose.Op{Kind: compose.OpStartContainer}, compose.StateRunning},
		{compose.Op{Kind: compose.OpKillContainer}, compose.StateExited},
		{compose.Op{Kind: compose.OpRemoveContainer, Volumes: true}, ""},
	} {
		step.op.Ref = ref
		for range 2 {
			r.apply(step.op)
		}
		if step.op.Kind == compose.OpKillContainer {
			if err := r.Wait(r.ctx, ref.ID); err == nil {
				r.t.Error("a killed container ended well")
			}
		}
		if got := r.container("web"); got.State != step.want {
			r.t.Errorf("after %s: %q (%s), want %q", step.op.Kind, got.State, got.Status, step.want)
		}
	}
}

func TestRealAwait(t *testing.T) {
	r := newReal(t)
	t.Run("healthy", func(t *testing.T) {
		ref := r.run("healthy", "sleep 0.3; touch /ok; sleep 100", health("test -e /ok"))
		if err := r.Await(r.ctx, ref.ID, compose.ConditionHealthy); err != nil {
			t.Fatal(err)
		}
		if c := r.container("healthy"); c.Health != compose.HealthHealthy {
			t.Errorf("it is %q", c.Health)
		}
		if err := r.Await(r.ctx, ref.ID, compose.ConditionRunningOrHealthy); err != nil {
			t.Error(err)
		}
	})
	t.Run("unhealthy", func(t *testing.T) {
		ref := r.run("unhealthy", "echo up and broken; sleep 100", health("echo no luck; exit 4"))
		e, ok := errors.AsType[*compose.AwaitError](r.Await(r.ctx, ref.ID, compose.ConditionHealthy))
		if !ok || e.Probe == nil || e.Probe.Output != "no luck\n" || e.Probe.ExitCode != 4 || !slices.Equal(e.Log, []string{"up and broken"}) {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("completed", func(t *testing.T) {
		well, badly := r.run("well", "sleep 0.2", nil), r.run("badly", "echo kaput; sleep 0.2; exit 7", nil)
		if err := r.Await(r.ctx, well.ID, compose.ConditionCompleted); err != nil {
			t.Error(err)
		}
		if err := r.Await(r.ctx, well.ID, compose.ConditionRunningOrHealthy); err != nil {
			t.Error(err)
		}
		e, ok := errors.AsType[*compose.AwaitError](r.Await(r.ctx, badly.ID, compose.ConditionCompleted))
		if !ok || e.ExitCode != 7 || e.Service != "badly" || !slices.Equal(e.Log, []string{"kaput"}) {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("out of memory", func(t *testing.T) {
		ref := r.run("hungry", "x=a; while :; do x=$x$x; done", func(s *compose.ContainerSpec) {
			s.Host.Memory, s.Host.MemorySwap = 16<<20, 16<<20
		})
		e, ok := errors.AsType[*compose.AwaitError](r.Await(r.ctx, ref.ID, compose.ConditionCompleted))
		if !ok || !e.OOMKilled {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("removed", func(t *testing.T) {
		ref := r.run("removed", "sleep 100", health("false; sleep 1"))
		done := make(chan error, 1)
		go func() { done <- r.Await(r.ctx, ref.ID, compose.ConditionCompleted) }()
		r.apply(compose.Op{Kind: compose.OpRemoveContainer, Ref: ref, Force: true})
		if err := <-done; err == nil {
			t.Error("a removed container completed")
		}
	})
}

func TestRealHook(t *testing.T) {
	r := newReal(t)
	ref := r.run("web", "sleep 100", nil)
	hook := func(command ...string) error {
		_, err := r.Do(r.ctx, compose.Op{Kind: compose.OpRunHook, Ref: ref, Hook: &types.ServiceHook{Command: command, WorkingDir: "/tmp"}}, nil, compose.Discard)
		return err
	}
	if err := hook("sh", "-c", "pwd > /tmp/where"); err != nil {
		t.Error(err)
	}
	if e, ok := errors.AsType[*HookError](hook("sh", "-c", "cat where; exit 5")); !ok || e.Code != 5 || e.Output != "/tmp\n" {
		t.Errorf("got %+v", e)
	}
}

func TestRealExec(t *testing.T) {
	r := newReal(t)
	ref := r.run("web", "sleep 100", nil)
	t.Run("input ends", func(t *testing.T) {
		var out, errOut bytes.Buffer
		err := r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"sh", "-c", "cat; echo bad >&2; exit 3"}, Streams: Streams{In: strings.NewReader("typed"), Out: &out, Err: &errOut}})
		if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 3 || out.String() != "typed" || errOut.String() != "bad\n" {
			t.Errorf("got %v, %q, %q", err, &out, &errOut)
		}
	})
	t.Run("no such command", func(t *testing.T) {
		var out bytes.Buffer
		err := r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"nonsense"}, Streams: Streams{Out: &out, Err: &out}})
		if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 127 || !strings.Contains(out.String(), "nonsense") {
			t.Errorf("got %v, %q", err, &out)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		m := &terminal{w: 101, h: 31}
		in, typing := io.Pipe()
		out := newScreen()
		done := make(chan error, 1)
		go func() {
			done <- r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"sh"}, TTY: true, Streams: Streams{In: in, Out: out, Terminal: m}})
		}()
		fmt.Fprint(typing, "stty size\n")
		out.waitFor(t, "31 101")
		m.mu.Lock()
		m.w, m.h = 90, 25
		m.mu.Unlock()
		m.resized()
		fmt.Fprint(typing, "while test \"$(stty size)\" != '25 90'; do sleep 0.05; done; echo re''sized\n")
		out.waitFor(t, "resized")
		fmt.Fprint(typing, "exit 6\n")
		if e, ok := errors.AsType[*ExitError](<-done); !ok || e.Code != 6 || !m.restored {
			t.Errorf("got %v, %+v", e, m)
		}
		_ = typing.Close()
	})
	t.Run("detach", func(t *testing.T) {
		m := &terminal{w: 80, h: 24}
		in, typing := io.Pipe()
		out := newScreen()
		done := make(chan error, 1)
		go func() {
			done <- r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"sh", "-c", "echo re''ady; sleep 0.5; touch /survived"}, TTY: true, Streams: Streams{In: in, Out: out, Terminal: m}})
		}()
		out.waitFor(t, "ready")
		fmt.Fprint(typing, "\x10\x11")
		if err := <-done; !errors.Is(err, ErrDetached) {
			t.Errorf("got %v", err)
		}
		_ = typing.Close()
		if err := r.Exec(r.ctx, ref.ID, ExecOptions{Command: []string{"sh", "-c", "until test -e /survived; do sleep 0.1; done"}}); err != nil {
			t.Error(err)
		}
	})
}

// screen is output that can be waited for.
type screen struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func newScreen() *screen { return &screen{more: make(chan struct{}, 1)} }

func (w *screen) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		all := w.buf.String()
		w.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-w.more:
		case <-timeout:
			t.Fatalf("no %q in %q", text, all)
		}
	}
}

func TestRealRun(t *testing.T) {
	r := newReal(t)
	oneOff := func(change func(*compose.ContainerSpec)) func(*compose.ContainerSpec) {
		return func(s *compose.ContainerSpec) {
			s.Config.OpenStdin, s.Config.StdinOnce, s.Config.AttachStdin, s.Config.AttachStdout, s.Config.AttachStderr = true, true, true, true, true
			if change != nil {
				change(s)
			}
		}
	}
	t.Run("filter", func(t *testing.T) {
		ref := r.create("filter", "echo first; tr a-z A-Z; exit 4", oneOff(nil))
		var out bytes.Buffer
		err := r.Run(r.ctx, ref.ID, Streams{In: strings.NewReader("loud\n"), Out: &out, Err: &out})
		if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 4 || out.String() != "first\nLOUD\n" {
			t.Errorf("got %v, %q", err, &out)
		}
	})
	t.Run("removed at its end", func(t *testing.T) {
		ref := r.create("rm", "exit 5", oneOff(func(s *compose.ContainerSpec) { s.Host.AutoRemove = true }))
		if e, ok := errors.AsType[*ExitError](r.Run(r.ctx, ref.ID, Streams{})); !ok || e.Code != 5 {
			t.Errorf("got %v", e)
		}
	})
	t.Run("terminal and detach", func(t *testing.T) {
		ref := r.create("tty", "stty size; echo re''ady; sleep 0.5; exit 9", oneOff(func(s *compose.ContainerSpec) { s.Config.Tty = true }))
		in, typing := io.Pipe()
		out, m := newScreen(), &terminal{w: 77, h: 22}
		done := make(chan error, 1)
		go func() { done <- r.Run(r.ctx, ref.ID, Streams{In: in, Out: out, Terminal: m}) }()
		out.waitFor(t, "ready")
		fmt.Fprint(typing, "\x10\x11")
		if err := <-done; !errors.Is(err, ErrDetached) {
			t.Errorf("got %v", err)
		}
		_ = typing.Close()
		if e, ok := errors.AsType[*ExitError](r.Wait(r.ctx, ref.ID)); !ok || e.Code != 9 {
			t.Errorf("it did not go on: %v", e)
		}
	})
	t.Run("cannot start", func(t *testing.T) {
		ref := r.create("broken", "", oneOff(func(s *compose.ContainerSpec) { s.Config.Cmd = []string{"nonsense"} }))
		if err := r.Run(r.ctx, ref.ID, Streams{}); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("attach", func(t *testing.T) {
		ref := r.run("attached", "read line; echo got $line; exit 2", oneOff(nil))
		var out bytes.Buffer
		err := r.Attach(r.ctx, ref.ID, Streams{In: strings.NewReader("it\n"), Out: &out})
		if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 2 || out.String() != "got it\n" {
			t.Errorf("got %v, %q", err, &out)
		}
	})
}

func TestRealLogs(t *testing.T) {
	r := newReal(t)
	refs := []compose.Ref{
		r.run("a", "echo a1; sleep 0.4; echo a2", nil),
		r.run("b", "sleep 0.2; echo b1 >&2; sleep 0.4; head -c 40000 /dev/zero | tr '\\0' x; echo", nil),
		r.run("c", "sleep 0.1; echo c1", func(s *compose.ContainerSpec) { s.Config.Tty = true }),
	}
	for _, ref := range refs {
		if err := r.Wait(r.ctx, ref.ID); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := r.Logs(r.ctx, r.observe().Containers, LogsOptions{}, func(l LogLine) {
		text := l.Text
		if len(text) > 100 {
			text = strconv.Itoa(len(text)) + " bytes"
		}
		got = append(got, fmt.Sprint(l.Container.Service(), " ", text, " ", l.Stderr))
	})
	want := []string{"a a1 false", "c c1 false", "b b1 true", "a a2 false", "b 40000 bytes false"}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestRealFollow(t *testing.T) {
	r := newReal(t)
	ctx, cancel := context.WithCancel(r.ctx)
	lines, ready, done := make(chan string, 100), make(chan struct{}), make(chan error, 1)
	r.run("first", "echo first; sleep 100", nil)
	go func() {
		o := LogsOptions{Follow: true, Project: r.project, Stay: true, Ended: func(c compose.Container, e End) {
			lines <- fmt.Sprintf("%s ended %d", c.Service(), e.Code)
		}}
		once := sync.OnceFunc(func() { close(ready) })
		done <- r.Logs(ctx, r.observe().Containers, o, func(l LogLine) { lines <- l.Container.Service() + " " + l.Text; once() })
	}()
	<-ready
	expect(t, lines, "first first")
	ref := r.run("second", "echo run $(cat /n 2>/dev/null); echo again > /n; exit 3", nil)
	expect(t, lines, "second run", "second ended 3")
	r.start(ref)
	expect(t, lines, "second run again", "second ended 3")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRealEvents(t *testing.T) {
	r := newReal(t)
	ctx, cancel := context.WithCancel(r.ctx)
	ready, seen, done := make(chan struct{}), make(chan string, 100), make(chan error, 1)
	go func() {
		done <- r.Events(ctx, EventsOptions{Project: r.project, Ready: func() { close(ready) }}, func(e Event) {
			seen <- fmt.Sprint(e.Service, " ", e.Action, " ", e.ExitCode())
		})
	}()
	<-ready
	r.run("job", "exit 3", nil)
	expect(t, seen, "job create 0", "job start 0", "job die 3")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var past []string
	err := r.Events(r.ctx, EventsOptions{Project: r.project, Since: "1h", Until: strconv.FormatInt(time.Now().Unix()+1, 10)}, func(e Event) { past = append(past, e.Action) })
	if err != nil || !slices.Contains(past, "die") {
		t.Errorf("past events %q, %v", past, err)
	}
}

func publish(port int) func(*compose.ContainerSpec) {
	return func(s *compose.ContainerSpec) {
		p := network.MustParsePort("80/tcp")
		s.Host.NetworkMode = "bridge"
		s.Config.ExposedPorts = network.PortSet{p: {}}
		s.Host.PortBindings = network.PortMap{p: {{HostPort: strconv.Itoa(port)}}}
	}
}

func TestRealPortConflicts(t *testing.T) {
	r := newReal(t)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	tryStart := func(ref compose.Ref) error {
		_, err := r.Do(r.ctx, compose.Op{Kind: compose.OpStartContainer, Ref: ref}, nil, compose.Discard)
		return err
	}
	e, ok := errors.AsType[*PortError](tryStart(r.create("a", "sleep 100", publish(port))))
	if !ok || int(e.Port) != port || !strings.Contains(e.Holder, fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("held by this process: got %+v", e)
	}
	_ = l.Close()
	r.run("b", "sleep 100", publish(port))
	e, ok = errors.AsType[*PortError](tryStart(r.create("c", "sleep 100", publish(port))))
	if !ok || e.Holder != fmt.Sprintf("container %q of project %q", r.project+"-b-1", r.project) {
		t.Errorf("held by a container: got %+v", e)
	}
	if at, ok := Published(r.container("b"), 80, "tcp"); !ok || at != fmt.Sprintf("0.0.0.0:%d", port) {
		t.Errorf("published at %q, %v", at, ok)
	}
}

func TestRealNetworkInUse(t *testing.T) {
	r := newReal(t)
	res := r.apply(compose.Op{Kind: compose.OpCreateNetwork, Network: &compose.NetworkSpec{Name: r.project, Driver: "bridge", Labels: map[string]string{compose.LabelProject: r.project}}})
	ref := r.run("web", "sleep 100", func(s *compose.ContainerSpec) { s.Host.NetworkMode = container.NetworkMode(r.project) })
	remove := compose.Op{Kind: compose.OpRemoveNetwork, Ref: compose.Ref{ID: res.ID}}
	_, err := r.Do(r.ctx, remove, nil, compose.Discard)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("still used by container %q", r.project+"-web-1")) {
		t.Errorf("got %v", err)
	}
	r.apply(compose.Op{Kind: compose.OpRemoveContainer, Ref: ref, Force: true})
	r.apply(remove)
}

func TestRealImages(t *testing.T) {
	r := newReal(t)
	r.create("web", "true", nil)
	snap := r.observe()
	images, err := r.Images(r.ctx, snap.Containers)
	if err != nil || len(images) != 1 || images[0].Repository != "busybox" || images[0].Tag != "engine-test" || images[0].Size == 0 {
		t.Errorf("got %+v, %v", images, err)
	}
	projects, err := r.Projects(r.ctx)
	if err != nil || !slices.ContainsFunc(projects, func(p Project) bool { return p.Name == r.project && p.States["created"] == 1 }) {
		t.Errorf("got %+v, %v", projects, err)
	}
	v, err := r.Version(r.ctx)
	if err != nil || v.Engine == "" || v.API == "" || v.OS != "linux" {
		t.Errorf("got %+v, %v", v, err)
	}
	byID, err := r.Observe(r.ctx, compose.Query{Images: []string{snap.Images[busybox].ID, strings.TrimPrefix(snap.Images[busybox].ID, "sha256:")[:12]}, SkipNetworks: true, SkipVolumes: true})
	if err != nil || len(byID.Images) != 2 {
		t.Errorf("by ID: %+v, %v", byID.Images, err)
	}
	d, err := r.Inspect(r.ctx, snap.Containers[0].ID, 5)
	if err != nil || d.State != compose.StateCreated || !d.Started.IsZero() || d.Created.IsZero() {
		t.Errorf("details %+v, %v", d, err)
	}
}

// TestRealListOfMovedImages: a list names the image that a container was made from, however many share a reference, and looks at the reference
// each time. The engine's patch that looks each reference up once is behind it.
func TestRealListOfMovedImages(t *testing.T) {
	r := newReal(t)
	api := r.api.Load()
	const moving = "busybox:moving"
	tag := func(source string) {
		t.Helper()
		if _, err := api.ImageTag(r.ctx, client.ImageTagOptions{Source: source, Target: moving}); err != nil {
			t.Fatal(err)
		}
	}
	other := r.otherImage()
	tag(busybox)
	from := func(s *compose.ContainerSpec) { s.Config.Image = moving }
	for _, name := range []string{"a", "b"} {
		r.create(name, "true", from)
	}
	r.create("same", "true", nil)
	r.wantImages(map[string]string{"a": moving, "b": moving, "same": busybox})
	id := r.container("a").ImageID
	tag(other)
	r.create("c", "true", from)
	r.wantImages(map[string]string{"a": id, "b": id, "c": moving, "same": busybox})
	if _, err := api.ImageRemove(r.ctx, moving, client.ImageRemoveOptions{Force: true}); err != nil { // the reference; the image has another
		t.Fatal(err)
	}
	gone := r.container("c").ImageID
	r.wantImages(map[string]string{"a": id, "b": id, "c": gone, "same": busybox})
}

// TestRealImagesToldByContainers: what containers tell of images is what the list of images says, wherever a name has gone meanwhile.
func TestRealImagesToldByContainers(t *testing.T) {
	r := newReal(t)
	api := r.api.Load()
	const moving = "busybox:told"
	t.Cleanup(func() {
		_, _ = api.ImageRemove(context.WithoutCancel(r.ctx), moving, client.ImageRemoveOptions{Force: true})
	})
	tag := func(source string) {
		t.Helper()
		if _, err := api.ImageTag(r.ctx, client.ImageTagOptions{Source: source, Target: moving}); err != nil {
			t.Fatal(err)
		}
	}
	tag(busybox)
	id := r.observe().Images[busybox].ID
	refs := []string{moving, "docker.io/library/" + moving, strings.TrimPrefix(id, "sha256:")[:12], id, "busybox@" + id, "busybox:nosuch@" + id}
	for i, ref := range refs {
		if _, err := api.ImageInspect(r.ctx, ref); err != nil { // by digest only where images have their manifests
			t.Logf("%s: %v", ref, err)
			continue
		}
		r.create(fmt.Sprintf("s%d", i), "true", func(s *compose.ContainerSpec) { s.Config.Image = ref })
	}
	r.wantImagesToldAlike("at first", refs...)
	other := r.otherImage()
	tag(other)
	if got := r.wantImagesToldAlike("moved to another image", refs...); got[moving] == id || got[moving] == "" {
		t.Errorf("moved: %+v", got)
	}
	r.create("new", "true", func(s *compose.ContainerSpec) { s.Config.Image = moving })
	r.wantImagesToldAlike("and a container made from that", refs...)
	tag(busybox)
	r.wantImagesToldAlike("moved back", refs...)
	r.loadRewritten(busybox, moving)
	r.wantImagesToldAlike("moved to the same configuration by another manifest", refs...)
	if _, err := api.ImageRemove(r.ctx, moving, client.ImageRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := r.wantImagesToldAlike("removed", refs...); got[moving] != "" {
		t.Errorf("removed: %+v", got)
	}
}

// wantImagesToldAlike compares what the containers may tell with what the engine's list of images says, and returns it: IDs by reference.
func (r *real) wantImagesToldAlike(when string, refs ...string) map[string]string {
	r.t.Helper()
	ids := func(idOnly []string) map[string]string {
		snap, err := r.Observe(r.ctx, compose.Query{Project: r.project, Images: refs, IDOnly: idOnly, SkipNetworks: true, SkipVolumes: true})
		if err != nil {
			r.t.Fatal(err)
		}
		out := map[string]string{}
		for ref, i := range snap.Images {
			out[ref] = i.ID
		}
		return out
	}
	listed, told := ids(nil), ids(refs)
	if !maps.Equal(listed, told) {
		r.t.Errorf("%s: containers tell %v, the list %v", when, told, listed)
	}
	return listed
}

// loadRewritten loads source as target, with the same configuration and layers but a manifest of its own.
func (r *real) loadRewritten(source, target string) {
	r.t.Helper()
	saved, err := r.api.Load().ImageSave(r.ctx, []string{source})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = saved.Close() }()
	files := map[string][]byte{}
	for in := tar.NewReader(saved); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if files[h.Name], err = io.ReadAll(in); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	delete(files, "manifest.json")
	files["index.json"] = r.rewrittenIndex(files, target)
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	for name, content := range files {
		if err := errors.Join(out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}), onlyError(out.Write(content))); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		r.t.Fatal(err)
	}
	loaded, err := r.api.Load().ImageLoad(r.ctx, &archive)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = loaded.Close() }()
	if said, err := io.ReadAll(loaded); err != nil || !strings.Contains(string(said), "Loaded image") {
		r.t.Fatalf("load: %s %v", said, err)
	}
}

func onlyError(_ int, err error) error { return err }

// rewrittenIndex adds an image's manifest again with an annotation, and returns an index that names that one.
func (r *real) rewrittenIndex(files map[string][]byte, name string) []byte {
	r.t.Helper()
	var index, manifest map[string]any
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		r.t.Fatal(err)
	}
	entry := index["manifests"].([]any)[0].(map[string]any)
	blob := func(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }
	if err := json.Unmarshal(files[blob(entry["digest"].(string))], &manifest); err != nil {
		r.t.Fatal(err)
	}
	if manifest["config"] == nil {
		r.t.Fatalf("not a manifest: %v", manifest)
	}
	manifest["annotations"] = map[string]string{"rewritten": name}
	content, err := json.Marshal(manifest)
	if err != nil {
		r.t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	files[blob(digest)] = content
	entry["digest"], entry["size"] = digest, len(content)
	tag := name[strings.LastIndex(name, ":")+1:]
	entry["annotations"] = map[string]string{"io.containerd.image.name": "docker.io/library/" + name, "org.opencontainers.image.ref.name": tag}
	index["manifests"] = []any{entry}
	content, err = json.Marshal(index)
	if err != nil {
		r.t.Fatal(err)
	}
	return content
}

// otherImage is the ID of an image of its own, made from a container.
func (r *real) otherImage() string {
	r.t.Helper()
	ref := r.create("source", "true", nil)
	res, err := r.api.Load().ContainerCommit(r.ctx, ref.ID, client.ContainerCommitOptions{Reference: "busybox:other", Comment: r.project})
	if err != nil {
		r.t.Fatal(err)
	}
	r.apply(compose.Op{Kind: compose.OpRemoveContainer, Ref: ref, Force: true})
	return res.ID
}

// wantImages compares what a list names as the images of the services' containers.
func (r *real) wantImages(want map[string]string) {
	r.t.Helper()
	got := map[string]string{}
	for _, c := range r.observe().Containers {
		got[c.Service()] = c.Image
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("images %v, want %v", got, want)
	}
}

// TestRealPortRange: containers that start at the same time with one range all get a port.
func TestRealPortRange(t *testing.T) {
	r := newReal(t)
	const n = 5
	var starts sync.WaitGroup
	for i := range n {
		ref := r.create(fmt.Sprint("web", i), "sleep 100", func(s *compose.ContainerSpec) {
			publish(0)(s)
			s.Host.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "18080-18084"}}}
		})
		starts.Go(func() {
			if _, err := r.Do(r.ctx, compose.Op{Kind: compose.OpStartContainer, Ref: ref}, nil, compose.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	ports := map[string]bool{}
	for _, c := range r.observe().Containers {
		if at, ok := Published(c, 80, "tcp"); ok {
			ports[at] = true
		}
	}
	if len(ports) != n {
		t.Errorf("ports %v", ports)
	}
}
