// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/seed71221737/dev/engine/native/supervise"
)

// startDeadline bounds a start, from the unpacked bundle to the first answer.
const startDeadline = 30 * time.Second

// ServeOptions say how to run a supervisor.
type ServeOptions struct {
	Paths  Paths
	Source Source
	// Notify is the socket of the service manager, as in NOTIFY_SOCKET; empty
	// when there is none.
	Notify string
	Log    *slog.Logger
}

// ErrRunning says that a supervisor runs already.
var ErrRunning = errors.New("the engine is running already")

// Serve is the supervisor: it runs the engine until ctx ends, which leaves
// containers running, or until it is told to stop on its control socket. It
// returns an error when the engine could not be started.
func Serve(ctx context.Context, o ServeOptions) error {
	if err := o.Paths.prepare(); err != nil {
		return err
	}
	lock, err := tryLock(o.Paths.runLock())
	if errors.Is(err, errLocked) {
		return ErrRunning
	}
	if err != nil {
		return err
	}
	defer lock.unlock()
	if err := remove(o.Paths.failure()); err != nil {
		return err
	}
	protect(o.Log)
	s := &supervisor{ServeOptions: o, stop: make(chan stopRequest), ready: make(chan struct{}), ended: make(chan struct{})}
	if err := s.run(ctx); err != nil {
		return errors.Join(err, leaveFailure(o.Paths, s.state().Stage, err))
	}
	return nil
}

// protect makes the kernel choose other processes first when memory runs out.
// Components inherit it; containers get their own value.
func protect(log *slog.Logger) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0); err != nil {
		log.Debug("not protected from memory pressure", "error", err)
	}
}

// prepare makes the folders.
func (p Paths) prepare() error {
	if err := p.validate(); err != nil {
		return err
	}
	for _, dir := range []struct {
		name string
		mode os.FileMode
	}{{p.Root, 0o711}, {p.Run, 0o711}, {p.bundles(), 0o755}, {p.LogDir(), 0o755}, {p.notify(), 0o700}} { // parents first: they have modes of their own
		if err := os.MkdirAll(dir.name, dir.mode); err != nil {
			return fmt.Errorf("make engine folder: %w", err)
		}
	}
	if err := os.Chmod(p.Run, 0o711); err != nil { // whatever the umask: everybody may ask for the status
		return fmt.Errorf("make engine folder: %w", err)
	}
	return nil
}

// supervisor is one run of Serve.
type supervisor struct {
	ServeOptions
	settings Settings
	inst     installation
	stop     chan stopRequest
	ready    chan struct{} // closed when the API answers
	ended    chan struct{} // closed when no component runs any more

	abort context.CancelCauseFunc // of a start that is going on
	// firewall tells what the host has, as it was found out while the bundle was
	// checked and containerd started; nil when that has been used.
	firewall    func() firewallFacts
	configuring sync.Mutex

	mu     sync.Mutex
	report Report
	group  *supervise.Group // nil until the components are started
}

// errAborted says that the engine was told to stop before it was ready.
var errAborted = errors.New("told to stop before it was ready")

// stopRequest asks to end the engine; done is closed when it has ended.
type stopRequest struct {
	keepContainers bool
	done           chan struct{}
}

func (s *supervisor) run(ctx context.Context) (err error) {
	if s.settings, err = loadSettings(s.Paths); err != nil {
		return err
	}
	s.setStage(StageCheck)
	var startCtx context.Context
	startCtx, s.abort = context.WithCancelCause(ctx)
	defer s.abort(nil)
	closeControl, err := s.serveControl()
	if err != nil {
		return err
	}
	defer closeControl()
	defer close(s.ended)
	if err := s.start(startCtx); err != nil {
		s.closeGroup()
		return err
	}
	close(s.ready)
	s.setStage(StageReady)
	sdNotify(s.Log, s.Notify, "READY=1")
	s.Log.Info("engine is ready", "version", s.report.Version)
	if s.Paths.Bundles == "" { // a shared folder is somebody else's to clean
		if err := removeOld(ctx, s.Paths.bundles(), s.inst.dir); err != nil {
			s.Log.Warn("old engine not removed", "error", err)
		}
	}
	request := s.await(ctx)
	defer close(request.done)
	sdNotify(s.Log, s.Notify, "STOPPING=1")
	s.shutdown(request.keepContainers)
	return nil
}

// await returns when the engine is to end, and how. SIGTERM, which ends ctx, is
// what systemd and a shutdown of the machine send: containers are not ours to
// stop then.
func (s *supervisor) await(ctx context.Context) stopRequest {
	rotate := time.NewTicker(time.Hour)
	defer rotate.Stop()
	own := supervise.Log{Path: s.Paths.log("supervisor")}
	for {
		select {
		case <-ctx.Done():
			return stopRequest{keepContainers: true, done: make(chan struct{})}
		case request := <-s.stop:
			return request
		case <-rotate.C:
			if err := own.Rotate(); err != nil {
				s.Log.Warn("log not rotated", "error", err)
			}
		}
	}
}

// start brings the engine up, stage by stage.
func (s *supervisor) start(ctx context.Context) (err error) {
	if err := endLeftovers(ctx, s.Log, s.Paths); err != nil {
		return err
	}
	if err := checkKernel(); err != nil {
		return err
	}
	if err := CheckAlone(s.Paths); err != nil {
		return err
	}
	if err := writeTrust(s.Paths.trust(), s.settings.CACertificates); err != nil {
		return err
	}
	s.firewall = observeFirewallSoon(ctx)
	s.setStage(StageUnpack)
	// unpacking depends on the disk and is done once: it is not under the deadline
	if s.inst, err = install(ctx, s.Source, s.Paths.bundles()); err != nil {
		return err
	}
	s.update(func(r *Report) {
		r.Version, r.Dir, r.Bundle = s.inst.manifest.Version, s.inst.dir, s.inst.manifest.Components
	})
	ctx, cancel := context.WithTimeoutCause(ctx, startDeadline, fmt.Errorf("not done within %s", startDeadline))
	defer cancel()
	s.setStage(StageConfigure)
	if err := writeVolatile(s.Paths.containerdConfig(), containerdTOML(s.Paths, s.settings), 0o600); err != nil {
		return err
	}
	s.setStage(StageStart)
	group, err := supervise.Start(s.Log, s.Paths.notify(), s.containerd(), s.dockerd())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.group = group
	s.mu.Unlock()
	return group.WaitReady(ctx)
}

// configureDockerd looks at the host and writes dockerd's configuration. It is
// done before every start of dockerd, because routes and firewall change.
func (s *supervisor) configureDockerd(ctx context.Context, liveRestore bool) error {
	s.configuring.Lock() // a restart of dockerd and a stop may meet
	defer s.configuring.Unlock()
	h, warnings, err := s.observeHost(ctx)
	if err != nil {
		return err
	}
	settings := s.settings
	settings.LiveRestore = liveRestore
	data, err := daemonJSON(s.Paths, s.inst.bin(), settings, h)
	if err != nil {
		return err
	}
	s.update(func(r *Report) {
		r.Firewall, r.Warnings, r.Pools = h.firewall, warnings, nil
		for _, pool := range h.pools {
			r.Pools = append(r.Pools, fmt.Sprintf("%s/%d", pool.Base, pool.Size))
		}
	})
	// proxies may hold passwords
	return writeVolatile(s.Paths.daemonConfig(), data, 0o600)
}

func (s *supervisor) observeHost(ctx context.Context) (host, []string, error) {
	var facts firewallFacts
	if first := s.firewall; first != nil {
		facts, s.firewall = first(), nil
	} else {
		facts = observeFirewall(ctx)
	}
	var h host
	var err error
	if h.firewall, err = chooseFirewall(s.settings.Firewall, facts); err != nil {
		return h, nil, err
	}
	warnings := facts.warnings(h.firewall)
	if h.firewall == FirewallNftables {
		more, err := enableForwarding(ctx)
		if err != nil {
			return h, nil, err
		}
		warnings = append(warnings, more...)
	}
	if h.group, err = socketGroup(s.settings); err != nil {
		return h, nil, err
	}
	if h.pools = s.settings.AddressPools; len(h.pools) == 0 {
		routes, err := observeRoutes()
		if err != nil {
			return h, nil, err
		}
		if h.pools, err = addressPools(routes); err != nil {
			return h, nil, err
		}
	}
	return h, warnings, nil
}

// containerd is the program that holds images and runs containers' shims.
func (s *supervisor) containerd() supervise.Program {
	return supervise.Program{
		Name:  "containerd",
		Path:  filepath.Join(s.inst.bin(), "containerd"),
		Args:  []string{"--config", s.Paths.containerdConfig()},
		Env:   s.environ(),
		Log:   supervise.Log{Path: s.Paths.log("containerd")},
		Grace: 10 * time.Second,
		// dockerd waits for a socket that is not there yet, but backs off a
		// whole second from one that refuses
		Prepare: func() error { return remove(s.Paths.containerdSocket()) },
	}
}

// dockerd is the program that serves the Docker API. It has no grace of its
// own: how long containers may take to stop is theirs to say.
func (s *supervisor) dockerd() supervise.Program {
	return supervise.Program{
		Name: "dockerd",
		Path: filepath.Join(s.inst.bin(), "dockerd"),
		Args: []string{"--config-file", s.Paths.daemonConfig(), "--pidfile", ""},
		Env:  s.environ(),
		Log:  supervise.Log{Path: s.Paths.log("dockerd")},
		// a dockerd that ends in order asks containerd, which ends at the same
		// time, and waits in vain; its data survives being killed
		DeathSignal: syscall.SIGKILL,
		Prepare: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), startDeadline)
			defer cancel()
			return s.configureDockerd(ctx, s.settings.LiveRestore)
		},
	}
}

// environ is the components' environment: the bundle's programs first, the
// host's firewall programs after them, and nothing of the caller's.
func (s *supervisor) environ() []string {
	return []string{
		"PATH=" + s.inst.bin() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
		"SSL_CERT_FILE=" + s.Paths.trust(),
	}
}

// shutdown ends dockerd, then containerd. Containers are stopped by dockerd
// itself, which gives each its grace period and remembers that those with a
// restart policy are to come back: stopping them one by one through the API
// would not.
func (s *supervisor) shutdown(keepContainers bool) {
	s.setStage(StageStopping)
	ctx, cancel := context.WithTimeout(context.Background(), stopDeadline(s.Paths, keepContainers))
	defer cancel()
	if !keepContainers && s.settings.LiveRestore {
		if err := s.stopWithContainers(ctx); err != nil {
			s.Log.Warn("containers keep running", "error", err)
		}
	}
	for _, name := range []string{"dockerd", "containerd"} {
		if err := s.group.Stop(ctx, name); err != nil {
			s.Log.Warn("component not stopped", "name", name, "error", err)
		}
	}
	s.closeGroup()
	for _, name := range []string{s.Paths.Socket(), s.Paths.containerdSocket(), s.Paths.containerdSocket() + ".ttrpc"} {
		if err := remove(name); err != nil {
			s.Log.Warn("socket not removed", "error", err)
		}
	}
	s.Log.Info("engine is stopped", "containers_kept", keepContainers && s.settings.LiveRestore)
}

// stopWithContainers makes the dockerd that runs stop its containers when it
// ends.
func (s *supervisor) stopWithContainers(ctx context.Context) error {
	if err := s.configureDockerd(ctx, false); err != nil {
		return err
	}
	return s.group.Reload(ctx, "dockerd")
}

func (s *supervisor) closeGroup() {
	if s.group != nil {
		s.group.Close()
	}
}

func (s *supervisor) setStage(stage Stage) {
	s.update(func(r *Report) { r.Stage = stage })
	sdNotify(s.Log, s.Notify, "STATUS="+string(stage))
}

func (s *supervisor) update(change func(*Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.report)
}

// state is the report as of now.
func (s *supervisor) state() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Components = []supervise.State{}
	if s.group != nil {
		r.Components = s.group.States()
	}
	return r
}

// sdNotify tells the service manager something; a manager that does not listen
// is not worth failing for.
func sdNotify(log *slog.Logger, socket, message string) {
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: socket})
	if err == nil {
		_, err = conn.Write([]byte(message))
		err = errors.Join(err, conn.Close())
	}
	if err != nil { // `dev engine start` listens only until the engine is ready
		log.Debug("service manager not notified", "error", err)
	}
}

// OtherEngineError says that a dockerd of somebody else runs in the same
// network namespace.
type OtherEngineError struct {
	PID  int
	Path string
}

func (e *OtherEngineError) Error() string {
	return fmt.Sprintf("another Docker Engine runs here (%s, process %d): two of them fight over docker0 and the firewall", e.Path, e.PID)
}

// Hint names the next step.
func (e *OtherEngineError) Hint() string {
	return "use that one (`dev` does when /var/run/docker.sock answers), or stop it first"
}
