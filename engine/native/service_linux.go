// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/seed71221737/dev/engine/native/supervise"
)

// Start starts the engine and waits until it answers. It returns false when it
// ran already, which is no error.
func (s *Service) Start(ctx context.Context, settings Settings) (started bool, err error) {
	if os.Geteuid() != 0 {
		return false, &PrivilegeError{Op: "start"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startOverall, fmt.Errorf("start the engine: not done within %s", startOverall))
	defer cancel()
	if err := s.Paths.prepare(); err != nil {
		return false, err
	}
	lock, err := waitLock(ctx, s.Paths.startLock())
	if err != nil {
		return false, err
	}
	defer lock.unlock()
	return s.startLocked(ctx, settings)
}

func (s *Service) startLocked(ctx context.Context, settings Settings) (bool, error) {
	switch phase, _ := s.observe(ctx); phase {
	case PhaseRunning, PhaseDegraded:
		return false, nil
	case PhaseStarting: // by systemd at boot
		return false, newControlClient(s.Paths).waitReady(ctx)
	case PhaseStopping:
		if err := s.waitEnd(ctx); err != nil {
			return false, err
		}
	case PhaseBroken: // or killed a moment ago
		if s.waitEnd(ctx) != nil {
			return false, &BrokenError{Holder: lockHolder(s.Paths.runLock())}
		}
	}
	if err := settings.save(s.Paths); err != nil {
		return false, err
	}
	if s.Systemd {
		return true, s.startUnit(ctx)
	}
	return true, s.spawn(ctx)
}

// Ensure starts the engine unless its API answers.
func (s *Service) Ensure(ctx context.Context, settings Settings) error {
	if conn, err := net.DialTimeout("unix", s.Paths.Socket(), answerDeadline); err == nil {
		return conn.Close() // dockerd accepts before it is ready, and answers then
	}
	_, err := s.Start(ctx, settings)
	return err
}

// Stop stops the engine and waits until it is gone. It returns false when it
// did not run, which is no error.
func (s *Service) Stop(ctx context.Context, o StopOptions) (stopped bool, err error) {
	if os.Geteuid() != 0 {
		return false, &PrivilegeError{Op: "stop"}
	}
	phase, _ := s.observe(ctx)
	if phase == PhaseBroken { // or killed a moment ago
		if s.waitEnd(ctx) != nil {
			return false, &BrokenError{Holder: lockHolder(s.Paths.runLock())}
		}
		phase = PhaseStopped
	}
	if phase == PhaseStopped {
		// a supervisor that was killed may have left components
		return false, endLeftovers(ctx, s.Log, s.Paths)
	}
	if err := newControlClient(s.Paths).stop(ctx, o.KeepContainers); err != nil && ctx.Err() != nil {
		return false, fmt.Errorf("stop the engine: %w", context.Cause(ctx))
	}
	return true, s.waitEnd(ctx)
}

// waitEnd waits until no supervisor holds the run lock.
func (s *Service) waitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endDeadline, fmt.Errorf("the supervisor is still there after %s", endDeadline))
	defer cancel()
	lock, err := waitLock(ctx, s.Paths.runLock())
	if err != nil {
		return fmt.Errorf("wait for the engine's end: %w", err)
	}
	lock.unlock()
	return nil
}

// observe derives the phase from what answers.
func (s *Service) observe(ctx context.Context) (Phase, *Report) {
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	report, err := newControlClient(s.Paths).status(ctx)
	if err != nil {
		if isLocked(s.Paths.runLock()) {
			return PhaseBroken, nil
		}
		return PhaseStopped, nil
	}
	return phaseOf(report), &report
}

// Status observes the service. What only the Docker API tells is missing when
// it does not answer within ctx or the caller may not use it.
func (s *Service) Status(ctx context.Context) (Status, error) {
	phase, report := s.observe(ctx)
	st := Status{Phase: phase, Host: s.Paths.Host(), Root: s.Paths.Root, Report: report}
	switch phase {
	case PhaseBroken:
		st.Problems = append(st.Problems, (&BrokenError{Holder: lockHolder(s.Paths.runLock())}).Error())
	case PhaseRunning, PhaseDegraded:
		st.Problems = append(st.Problems, report.Warnings...)
		err := askAPI(ctx, s.Paths, &st)
		if err != nil && !errors.Is(err, os.ErrPermission) {
			st.Problems = append(st.Problems, err.Error())
		}
	}
	return st, nil
}

// spawn starts the supervisor as a process of its own: in its own session,
// with nothing of the caller's terminal or environment.
func (s *Service) spawn(ctx context.Context) error {
	log := supervise.Log{Path: s.Paths.log("supervisor")}
	if err := log.Rotate(); err != nil {
		return err
	}
	out, err := log.Open()
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	defer out.Close() // the child has its own copy
	socket := filepath.Join(s.Paths.notify(), "start.sock")
	messages, err := listenNotify(socket)
	if err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	defer messages.close()
	cmd := exec.Command(s.Supervisor[0], s.Supervisor[1:]...) // not the caller's context: it outlives the caller
	cmd.Dir = "/"
	cmd.Env = s.supervisorEnv(socket)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the engine's supervisor: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }() // ends with the supervisor, or with this process
	return s.follow(ctx, cmd.Process, messages.lines, exited)
}

// supervisorEnv is the environment of the supervisor.
func (s *Service) supervisorEnv(notify string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "NOTIFY_SOCKET=" + notify}
	return append(env, s.Env...)
}

// follow waits for the supervisor's word that it is ready, or its end.
func (s *Service) follow(ctx context.Context, supervisor *os.Process, lines <-chan string, exited <-chan error) error {
	for {
		select {
		case line := <-lines:
			if line == "READY=1" {
				return nil
			}
			if stage, ok := strings.CutPrefix(line, "STATUS="); ok && s.Stage != nil {
				s.Stage(Stage(stage))
			}
		case err := <-exited:
			return s.failure(err)
		case <-ctx.Done(): // never half-started
			err := supervisor.Signal(syscall.SIGTERM)
			<-exited //nolint:errcheck // its end is all that matters: the cause is known
			return errors.Join(fmt.Errorf("start the engine: %w", context.Cause(ctx)), ignoreGone(err))
		}
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// failure is why the supervisor ended before it was ready.
func (s *Service) failure(exit error) error {
	data, err := os.ReadFile(s.Paths.failure())
	if err == nil {
		if f, err := parseFailure(data); err == nil {
			return f
		}
	}
	tail := supervise.Log{Path: s.Paths.log("supervisor")}.Tail(5, 0)
	return &Failure{Stage: StageCheck, Message: fmt.Sprintf("the supervisor ended (%v)", exit), Log: tail}
}

// notifyListener receives sd_notify messages line by line.
type notifyListener struct {
	conn  *net.UnixConn
	lines chan string
	ended chan struct{}
	stop  chan struct{}
}

func listenNotify(socket string) (*notifyListener, error) {
	if err := remove(socket); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		return nil, err
	}
	l := &notifyListener{conn: conn, lines: make(chan string), ended: make(chan struct{}), stop: make(chan struct{})}
	go l.receive()
	return l, nil
}

func (l *notifyListener) receive() {
	defer close(l.ended)
	buf := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(buf[:n])) {
			select {
			case l.lines <- strings.TrimSpace(line):
			case <-l.stop:
				return
			}
		}
	}
}

func (l *notifyListener) close() {
	close(l.stop)
	_ = l.conn.SetReadDeadline(time.Now()) // wakes the reader; cannot fail on an open socket
	<-l.ended
	name := l.conn.LocalAddr().String()
	_ = l.conn.Close()
	_ = os.Remove(name)
}

// Outdated says that the engine that runs was unpacked from another bundle than
// the one that a start would use.
func (s *Service) Outdated(ctx context.Context) (bool, error) {
	_, report := s.observe(ctx)
	if report == nil || report.Dir == "" {
		return false, nil
	}
	m, err := s.Source.Manifest()
	return err == nil && filepath.Base(report.Dir) != m.ID(), err
}
