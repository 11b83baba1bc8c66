// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// session is one session channel: settings first, then one program.
type session struct {
	server *Server
	conn   ssh.Conn
	ch     ssh.Channel
	env    []string
	pty    *ptyRequest

	// launched is closed when the command runs or could not be started; nil where there is none. Signals wait for it.
	launched chan struct{}
	once     sync.Once

	mu      sync.Mutex
	tty     *os.File
	process *os.Process
}

type ptyRequest struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

type windowChange struct{ Columns, Rows, Width, Height uint32 }

func (s *Server) session(ctx context.Context, conn ssh.Conn, c ssh.NewChannel) {
	ch, requests, err := c.Accept()
	if err != nil {
		return
	}
	if s.Settle != nil {
		ch = settledChannel{ch, s.Settle}
	}
	x := &session{server: s, conn: conn, ch: ch, env: s.environment()}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	started := false
	for r := range requests {
		run := x.prepare(r, started)
		if r.WantReply {
			_ = r.Reply(run.ok, nil) // a dead connection ends the loop
		}
		if run.program != nil {
			started = true
			wg.Go(func() {
				defer s.logPanic()
				x.end(run.program(ctx))
			})
		}
	}
	// The channel is gone: so is the program on it.
	cancel()
	wg.Wait()
	ch.Close()
}

// outcome says whether a request is granted, and what to run.
type outcome struct {
	ok      bool
	program func(context.Context) uint32
}

// prepare handles one request on the channel.
func (x *session) prepare(r *ssh.Request, started bool) outcome {
	switch r.Type {
	case "env":
		var p struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &p) != nil || started || !envName.MatchString(p.Name) {
			return outcome{}
		}
		x.env = append(x.env, p.Name+"="+p.Value)
		return outcome{ok: true}
	case "pty-req":
		var p ptyRequest
		if ssh.Unmarshal(r.Payload, &p) != nil || started {
			return outcome{}
		}
		x.pty = &p
		return outcome{ok: true}
	case "window-change":
		var p windowChange
		return outcome{ok: ssh.Unmarshal(r.Payload, &p) == nil && x.resize(p)}
	case "signal":
		var p struct{ Name string }
		return outcome{ok: ssh.Unmarshal(r.Payload, &p) == nil && x.signal(p.Name)}
	case "auth-agent-req@openssh.com":
		if started || x.server.AgentSocket == "" {
			return outcome{}
		}
		x.server.keyAgents.add(x.conn)
		x.env = append(x.env, "SSH_AUTH_SOCK="+x.server.AgentSocket)
		return outcome{ok: true}
	case "shell":
		return x.command(started, "-l")
	case "exec":
		var p struct{ Command string }
		if ssh.Unmarshal(r.Payload, &p) != nil {
			return outcome{}
		}
		return x.command(started, "-c", p.Command)
	case "subsystem":
		var p struct{ Name string }
		if ssh.Unmarshal(r.Payload, &p) != nil || started {
			return outcome{}
		}
		return x.subsystem(p.Name)
	}
	return outcome{}
}

// envName is what a client may set: not what changes how programs are loaded.
var envName = regexp.MustCompile(`^(LANG|LC_[A-Z]+|TERM|TZ|COLORTERM|DEV_[A-Z_]+|GIT_PROTOCOL|DOCKER_[A-Z_]+|BUILDKIT_[A-Z_]+)$`)

// command runs the shell, once for each session.
func (x *session) command(started bool, args ...string) outcome {
	if started {
		return outcome{}
	}
	x.launched = make(chan struct{})
	return outcome{ok: true, program: func(ctx context.Context) uint32 {
		defer x.launch()
		return x.run(ctx, x.server.Shell, args...)
	}}
}

// launch lets signals through, which wait until there is a process to get them.
func (x *session) launch() { x.once.Do(func() { close(x.launched) }) }

func (x *session) subsystem(name string) outcome {
	switch {
	case name == "sftp":
		return outcome{ok: true, program: x.sftp}
	case name == proto.Subsystem && x.server.Control != nil:
		return outcome{ok: true, program: func(ctx context.Context) uint32 {
			if err := x.server.Control.Serve(ctx, x.ch); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(x.ch.Stderr(), err)
				return 1
			}
			return 0
		}}
	}
	return outcome{}
}

func (x *session) sftp(context.Context) uint32 {
	server, err := sftp.NewServer(x.ch, sftp.WithServerWorkingDirectory("/root"))
	if err != nil {
		fmt.Fprintln(x.ch.Stderr(), err)
		return 1
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return 1
	}
	return 0
}

// end tells the client how the program ended and closes the channel.
func (x *session) end(status uint32) {
	_, _ = x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status})) // the client may be gone
	x.ch.Close()
}

// hangUp is how long a program may take to end once its client is gone.
const hangUp = 5 * time.Second

// Programs are started by a shell of the root file system that goes to the folder first. The home folder may be in a share that this process serves: a forked
// child that waits for it would hang both, as garbage collection stops here until the child runs its program.
const (
	starter  = "/bin/sh"
	inFolder = `cd "$0" 2>/dev/null; exec "$@"`
)

// run runs a program on the channel and returns its exit code.
func (x *session) run(ctx context.Context, name string, args ...string) uint32 {
	cmd := exec.CommandContext(ctx, starter, append([]string{"-c", inFolder, homeDir(x.env), name}, args...)...)
	cmd.Env, cmd.Dir = x.env, "/"
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) }
	cmd.WaitDelay = hangUp
	var err error
	if x.pty != nil {
		err = x.runTTY(cmd)
	} else {
		err = x.runPipes(cmd)
	}
	return exitStatus(err, x.ch)
}

func homeDir(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "HOME="); ok && filepath.IsAbs(v) {
			if _, err := os.Stat(v); err == nil {
				return v
			}
		}
	}
	return "/"
}

func exitStatus(err error, ch ssh.Channel) uint32 {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + uint32(ws.Signal())
		}
		return uint32(exit.ExitCode())
	}
	fmt.Fprintln(ch.Stderr(), err)
	return 127
}

func (x *session) runPipes(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = x.ch, x.ch.Stderr()
	// Not cmd.Stdin: Wait would wait for the client to close it.
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	x.started(cmd.Process, nil)
	go func() {
		_, _ = io.Copy(in, x.ch) // ends with the channel
		_ = in.Close()
	}()
	return cmd.Wait()
}

func (x *session) runTTY(cmd *exec.Cmd) error {
	cmd.Env = append(cmd.Env, "TERM="+x.pty.Term)
	size := &pty.Winsize{Cols: uint16(x.pty.Columns), Rows: uint16(x.pty.Rows), X: uint16(x.pty.Width), Y: uint16(x.pty.Height)}
	tty, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return err
	}
	defer tty.Close()
	x.started(cmd.Process, tty)
	go func() { _, _ = io.Copy(tty, x.ch) }() // ends with the channel or the terminal
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(x.ch, tty) // EIO when the last program on it is gone
	}()
	err = cmd.Wait()
	select {
	case <-copied:
	case <-time.After(hangUp): // a background program keeps the terminal open
	}
	return err
}

func (x *session) started(p *os.Process, tty *os.File) {
	x.mu.Lock()
	x.process, x.tty = p, tty
	x.mu.Unlock()
	x.launch()
}

func (x *session) resize(w windowChange) bool {
	if x.launched != nil {
		<-x.launched
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tty != nil && pty.Setsize(x.tty, &pty.Winsize{Cols: uint16(w.Columns), Rows: uint16(w.Rows), X: uint16(w.Width), Y: uint16(w.Height)}) == nil
}

// signals are those of RFC 4254.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP, "ILL": syscall.SIGILL, "INT": syscall.SIGINT,
	"KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV, "TERM": syscall.SIGTERM,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

func (x *session) signal(name string) bool {
	if x.launched != nil {
		<-x.launched
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	sig, ok := signals[name]
	return ok && x.process != nil && syscall.Kill(-x.process.Pid, sig) == nil
}
