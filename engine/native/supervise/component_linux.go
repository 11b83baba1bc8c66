// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// exitLines is the number of log lines kept of a process that ended.
const exitLines = 10

// rotateEvery is how often a log's size is looked at.
const rotateEvery = time.Minute

// component runs one program until it is told to end.
type component struct {
	group   *Group
	program Program
	notify  *net.UnixConn
	running bool // the loop was started

	stopping sync.Once
	stop     chan struct{} // closed: end the program and the loop
	hurry    chan struct{} // closed: do not wait for the grace
	hurrying sync.Once
	done     chan struct{} // closed: the loop ended

	mu    sync.Mutex
	state State
	proc  *os.Process
	ready chan struct{} // closed and replaced at every READY=1
}

func newComponent(g *Group, p Program, runDir string) (*component, error) {
	socket := filepath.Join(runDir, "notify-"+p.Name+".sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &component{
		group: g, program: p, notify: conn,
		stop: make(chan struct{}), hurry: make(chan struct{}), done: make(chan struct{}), ready: make(chan struct{}),
		state: State{Name: p.Name, Phase: Starting, Since: time.Now()},
	}, nil
}

// loop starts the program again and again until it is told to end.
func (c *component) loop() {
	defer close(c.done)
	defer c.set(func(s *State) { s.Phase, s.PID = Stopped, 0 })
	var delay backoff
	for {
		began := time.Now()
		exit := c.once()
		select {
		case <-c.stop:
			return
		default:
		}
		wait := delay.next(time.Since(began))
		c.group.log.Warn("component ended", "name", c.program.Name, "reason", exit.Reason, "restart_in", wait)
		c.set(func(s *State) { s.Phase, s.PID, s.LastExit = Waiting, 0, &exit })
		select {
		case <-c.stop:
			return
		case <-time.After(wait):
		}
		c.set(func(s *State) { s.Phase, s.Restarts = Starting, s.Restarts+1 })
	}
}

// once runs the program from start to end.
func (c *component) once() Exit {
	log := c.program.Log
	rotateErr := log.Rotate()
	if rotateErr != nil {
		c.group.log.Warn("log not rotated", "error", rotateErr)
	}
	since := log.size()
	cmd, err := c.launch()
	if err != nil {
		return Exit{At: time.Now(), Reason: err.Error(), Err: err}
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	err = c.watch(cmd, exited)
	c.setProcess(nil)
	reason := "exit status 0"
	if err != nil {
		reason = err.Error()
	}
	return Exit{At: time.Now(), Reason: reason, Log: log.Tail(exitLines, since), Err: err}
}

// launch starts the process with its output in the log.
func (c *component) launch() (*exec.Cmd, error) {
	if c.program.Prepare != nil {
		if err := c.program.Prepare(); err != nil {
			return nil, err
		}
	}
	out, err := c.program.Log.Open()
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(c.program.Path, c.program.Args...)
	cmd.Env = environ(c.program, c.notify.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = out, out
	if err := c.group.start(cmd, c.program.DeathSignal); err != nil {
		return nil, err
	}
	c.setProcess(cmd.Process)
	c.set(func(s *State) { s.PID = cmd.Process.Pid })
	c.group.log.Info("component started", "name", c.program.Name, "pid", cmd.Process.Pid)
	return cmd, nil
}

// watch follows a process until it has ended.
func (c *component) watch(cmd *exec.Cmd, exited <-chan error) error {
	messages, quit := c.listen()
	defer quit()
	rotate := time.NewTicker(rotateEvery)
	defer rotate.Stop()
	stop := c.stop
	var kill <-chan time.Time
	for {
		select {
		case err := <-exited:
			return err
		case m := <-messages:
			c.hear(m)
		case <-rotate.C:
			if err := c.program.Log.Rotate(); err != nil {
				c.group.log.Warn("log not rotated", "error", err)
			}
		case <-stop:
			stop = nil
			c.tell(cmd, syscall.SIGTERM)
			if c.program.Grace > 0 {
				kill = time.After(c.program.Grace)
			}
		case <-kill:
			c.tell(cmd, syscall.SIGKILL)
		case <-c.hurry:
			c.tell(cmd, syscall.SIGKILL)
			return <-exited
		}
	}
}

func (c *component) tell(cmd *exec.Cmd, sig syscall.Signal) {
	if err := cmd.Process.Signal(sig); err != nil && !isGone(err) {
		c.group.log.Warn("component not signalled", "name", c.program.Name, "signal", sig, "error", err)
	}
}

// listen reads the program's messages until quit is called.
func (c *component) listen() (messages <-chan string, quit func()) {
	ch := make(chan string)
	ended := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := c.notify.Read(buf)
			if err != nil {
				return
			}
			select {
			case ch <- string(buf[:n]):
			case <-stop:
				return
			}
		}
	}()
	return ch, func() {
		close(stop)
		_ = c.notify.SetReadDeadline(time.Now()) // wakes the reader; cannot fail on an open socket
		<-ended
		_ = c.notify.SetReadDeadline(time.Time{})
	}
}

// hear takes one sd_notify message.
func (c *component) hear(message string) {
	for line := range strings.Lines(message) {
		if strings.TrimSpace(line) == "READY=1" {
			c.set(func(s *State) { s.Phase = Running })
			c.mu.Lock()
			close(c.ready)
			c.ready = make(chan struct{})
			c.mu.Unlock()
		}
	}
}

// nextReady is closed when the program next says that it is ready.
func (c *component) nextReady() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// State is a copy of the state.
func (c *component) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// set changes the state and wakes those who wait for a change.
func (c *component) set(change func(*State)) {
	c.mu.Lock()
	before := c.state.Phase
	change(&c.state)
	if c.state.Phase != before {
		c.state.Since = time.Now()
	}
	c.mu.Unlock()
	c.group.notifyAll()
}

func (c *component) setProcess(p *os.Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proc = p
}

// signal sends a signal to the process that runs now.
func (c *component) signal(sig os.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return os.ErrProcessDone
	}
	return c.proc.Signal(sig)
}

// end stops the program for good and waits for it.
func (c *component) end(ctx context.Context) {
	if !c.running {
		return
	}
	c.stopping.Do(func() { close(c.stop) })
	select {
	case <-c.done:
	case <-ctx.Done():
		c.hurrying.Do(func() { close(c.hurry) })
		<-c.done
	}
}

func (c *component) closeNotify() {
	name := c.notify.LocalAddr().String()
	_ = c.notify.Close() // nothing is lost with a socket that is only read
	_ = os.Remove(name)
}
