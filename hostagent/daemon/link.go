// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// link is the SSH connection to the guest's agent, made anew when it breaks. It is safe for concurrent use.
type link struct {
	a *agent

	mu      sync.Mutex
	current *session
	changed chan struct{} // closed and replaced when current changes
	closed  bool
}

// session is one connection with its control stream.
type session struct {
	ssh      *ssh.Client
	control  *proto.Client
	prepared chan struct{} // closed once the guest is set up for us
}

func newLink(a *agent) *link { return &link{a: a, changed: make(chan struct{})} }

// handshakeWait bounds one attempt to log in, which takes the guest's processor a while under emulation.
const handshakeWait = 30 * time.Second

// prepareWait bounds setting the guest up, while its processor is busy with booting.
const prepareWait = 60 * time.Second

// connectWait bounds one attempt to reach the port: a guest that is there answers at once.
const connectWait = 500 * time.Millisecond

// begin lets connections in again after end, for a life.
func (l *link) begin(*life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = false
}

// connect tries until the guest's agent has let us in and set the guest up.
func (l *link) connect(ctx context.Context, lf *life) error {
	for {
		s, err := l.open(ctx, lf, l.a.o.Key, l.a.o.HostKey)
		if err == nil {
			l.replace(s)
			return nil
		}
		l.a.log.Debug("link", "error", err)
		var version *proto.VersionError
		if errors.As(err, &version) || isKeyError(err) {
			return err // waiting does not help
		}
		if ctx.Err() != nil || pause(ctx, retryPause) != nil {
			return fmt.Errorf("the machine's agent does not answer: %w", err)
		}
	}
}

// isKeyError says that the other side is not who it should be, or does not know us.
func isKeyError(err error) bool {
	return strings.Contains(err.Error(), "host key mismatch") || strings.Contains(err.Error(), "unable to authenticate")
}

func (l *link) open(ctx context.Context, lf *life, login ssh.Signer, host ssh.PublicKey) (*session, error) {
	n := l.a.net.Load()
	dialing, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	conn, err := n.Dial(dialing, netip.AddrPortFrom(n.Guest, 22))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeWait))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	config := &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyCallback: ssh.FixedHostKey(host), ClientVersion: "SSH-2.0-dev"}
	c, channels, requests, err := ssh.NewClientConn(conn, "machine", config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("log in to the machine: %w", err), conn.Close())
	}
	client := ssh.NewClient(c, channels, requests)
	control, err := l.openControl(client)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	if stop() && ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), control.Close(), client.Close())
	}
	s := &session{ssh: client, control: control, prepared: make(chan struct{})}
	if _, err := l.a.pushClock(ctx, control); err != nil {
		l.a.log.Warn("the clock could not be set", "error", err)
	}
	if lf.restored && lf.notes.Prepared && !lf.prepared.Swap(true) {
		close(s.prepared) // it was, before it was saved
		return s, nil
	}
	lf.work.Go(func() { l.prepare(lf, s) })
	return s, nil
}

// stream is a session channel as one stream.
type stream struct {
	io.Reader
	io.WriteCloser
	session *ssh.Session
}

func (s stream) Close() error {
	err := s.WriteCloser.Close()
	if closeErr := s.session.Close(); closeErr != nil && !errors.Is(closeErr, io.EOF) {
		return errors.Join(err, closeErr)
	}
	return err
}

// openControl opens the control stream, which also offers the user's SSH agent to the guest.
func (l *link) openControl(client *ssh.Client) (*proto.Client, error) {
	s, err := client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("open the control stream: %w", err)
	}
	l.a.offerKeys(client, s)
	in, err1 := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err1, err2, s.RequestSubsystem(proto.Subsystem)); err != nil {
		return nil, fmt.Errorf("open the control stream: %w", err)
	}
	return proto.NewClient(stream{out, in, s}, "dev host agent")
}

// prepare makes the loopback of a guest that was just reached reachable.
func (l *link) prepare(lf *life, s *session) {
	defer close(s.prepared)
	if f := l.a.forwards.Load(); f != nil {
		defer f.again()
	}
	ctx, cancel := context.WithTimeout(lf.ctx, prepareWait)
	defer cancel()
	var p *hostagent.Problem
	out, err := runScript(ctx, s.ssh, guestScript(l.a.net.Load().Addresses))
	if lf.ctx.Err() != nil {
		return
	}
	if err != nil {
		p = &hostagent.Problem{
			Code: "loopback-ports", Text: fmt.Sprintf("ports published on 127.0.0.1 are slow: %v: %s", err, out),
			Hint: "upgrade the machine's image: `dev machine upgrade " + l.a.o.Machine + "`",
		}
	}
	l.a.slowLoopback.Store(p != nil)
	l.a.state.problem("loopback", p)
}

// runScript runs a shell script in the guest and returns what it says.
func runScript(ctx context.Context, client *ssh.Client, script string) (string, error) {
	s, err := client.NewSession()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	defer s.Close()
	s.Stdin = strings.NewReader(script)
	out, err := s.CombinedOutput("exec /bin/sh -s")
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}

func (l *link) replace(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed && s != nil {
		_, _ = s.control.Close(), s.ssh.Close()
		return
	}
	l.current = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// get waits for a connection.
func (l *link) get(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, changed := l.current, l.changed
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the machine cannot be reached: %w", context.Cause(ctx))
		case <-l.a.ctx.Done():
			return nil, errors.New("the machine is off")
		case <-changed:
		}
	}
}

// peek is the connection that is there now, or nil.
func (l *link) peek() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// keep makes the connection anew whenever it is not there, until the life ends.
func (l *link) keep(lf *life) {
	for lost := false; lf.ctx.Err() == nil; {
		if l.peek() == nil {
			if lost {
				l.a.state.problem("link", &hostagent.Problem{Code: "link-lost", Text: "the connection to the machine's agent broke and is being made anew", Hint: "see `dev machine logs --console " + l.a.o.Machine + "`"})
			}
			lost = true
			if l.connect(lf.ctx, lf) != nil {
				if pause(lf.ctx, clockEvery) != nil {
					return
				}
				continue
			}
			l.a.state.problem("link", nil)
		}
		if s := l.peek(); s != nil {
			_ = s.ssh.Wait() // for its end, whatever it is
			_ = s.control.Close()
			l.replace(nil)
			lost = true
		}
	}
}

// end closes the connection, and lets none in until begin.
func (l *link) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.current != nil {
		_, _ = l.current.control.Close(), l.current.ssh.Close() // the guest may be gone already
	}
	l.current = nil
	l.a.state.problem("link", nil)
	return nil
}

// call asks the guest's control interface.
func (l *link) call(ctx context.Context, method string, params, result any) error {
	s, err := l.get(ctx)
	if err != nil {
		return err
	}
	return s.control.Call(ctx, method, params, result)
}

func (l *link) health(ctx context.Context) (proto.Health, error) {
	var h proto.Health
	err := l.call(ctx, proto.MethodHealth, nil, &h)
	return h, err
}

// dial connects to a socket in the guest, as the guest names it.
func (l *link) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	s, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return s.ssh.DialContext(ctx, kind, address)
}

// readMounts are the places in the guest at which something is mounted.
func (l *link) readMounts(ctx context.Context) (map[string]bool, error) {
	s, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	text, err := runScript(ctx, s.ssh, "cat /proc/mounts\n")
	if err != nil {
		return nil, fmt.Errorf("list what is mounted in the machine: %w", err)
	}
	return parseMounts(text), nil
}

// parseMounts reads /proc/mounts, in which some characters are written as octal numbers.
func parseMounts(text string) map[string]bool {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	found := map[string]bool{}
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 2 {
			found[unescape.Replace(fields[1])] = true
		}
	}
	return found
}
