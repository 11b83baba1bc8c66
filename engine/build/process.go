// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/build/wire"
)

// farewell is how long the program may take to end once its input has.
const farewell = 5 * time.Second

// process is a running build program.
type process struct {
	name    string
	session *yamux.Session
	backend engine.Backend
	cancel  context.CancelFunc
	calls   sync.WaitGroup
	stderr  tail
	// done is closed when the program has ended, with err; then calls are answered no more.
	done chan struct{}
	err  error
}

// startProcess starts the program. It belongs to no command's context: close ends it.
func startProcess(name string, environ []string, backend engine.Backend) (_ *process, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{name: name, backend: backend, cancel: cancel, done: make(chan struct{})}
	defer func() {
		if err != nil {
			cancel()
			err = fmt.Errorf("start the build program %q: %w", name, err)
		}
	}()
	cmd := exec.CommandContext(ctx, name)
	cmd.Env = environ
	cmd.Stderr = &p.stderr
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = farewell
	cmd.SysProcAttr = ownGroup() // Ctrl-C cancels its builds through us, so that they can say how they ended
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if p.session, err = wire.Open(wire.Pipes{ReadCloser: out, WriteCloser: in}); err != nil {
		cancel()
		return nil, errors.Join(err, cmd.Wait())
	}
	go p.serve(ctx, cmd)
	return p, nil
}

// serve answers what the program asks until it ends.
func (p *process) serve(ctx context.Context, cmd *exec.Cmd) {
	defer close(p.done)
	for {
		stream, err := p.session.AcceptStream()
		if err != nil { // its output has ended, or close was called
			break
		}
		p.calls.Go(func() { p.answer(ctx, stream) })
	}
	_ = p.session.Close()
	force := time.AfterFunc(farewell, p.cancel)
	p.err = cmd.Wait()
	force.Stop()
	p.cancel()
	p.calls.Wait()
}

// answer gives the program what it asks for.
func (p *process) answer(ctx context.Context, stream *yamux.Stream) {
	defer stream.Close()
	var call wire.Call
	if wire.Read(stream, &call) != nil {
		return // it has changed its mind
	}
	switch {
	case call.Registry != nil:
		found, err := p.backend.RegistryAuth(*call.Registry)
		creds := wire.Credentials(found)
		_ = wire.Write(stream, wire.Answer{Error: text(err), Credentials: &creds})
	case call.Dial != nil:
		conn, err := p.backend.DialHijack(ctx, call.Dial.Path, call.Dial.Proto, call.Dial.Meta)
		if wire.Write(stream, wire.Answer{Error: text(err)}) != nil || err != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		join(stream, conn)
	}
}

// join carries bytes both ways until one side ends.
func join(a, b io.ReadWriteCloser) {
	var both sync.WaitGroup
	carry := func(to, from io.ReadWriteCloser) {
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
	}
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	both.Wait()
}

func (p *process) runs() bool {
	select {
	case <-p.session.CloseChan():
		return false
	default:
		return true
	}
}

// ended explains an error of the connection: most often the program has ended, and said why.
func (p *process) ended(err error) error {
	if p.runs() {
		return fmt.Errorf("talk to the build program %q: %w", p.name, err)
	}
	<-p.done
	if p.err != nil {
		err = p.err
	}
	said := strings.TrimSpace(p.stderr.String())
	if said != "" {
		said = ": " + said
	}
	return fmt.Errorf("the build program %q has ended (%w)%s", p.name, err, said)
}

// close ends the program and waits for it.
func (p *process) close() error {
	err := p.session.Close()
	<-p.done
	return err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if more := len(t.b) - tailSize; more > 0 {
		t.b = append(t.b[:0], t.b[more:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
