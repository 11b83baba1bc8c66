// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// guestDocker is the engine's socket in the guest.
const guestDocker = "/run/docker.sock"

// openWait bounds opening a connection to the guest for somebody who waits on the host.
const openWait = 30 * time.Second

// wakeWait is how long who comes while the machine is asleep waits for it to wake; a machine whose memory is lost boots meanwhile.
const wakeWait = 3 * time.Minute

// serveDocker serves the engine's socket on the host.
func (a *agent) serveDocker() error {
	l, err := listenLocal(a.o.Docker)
	if err != nil {
		return err
	}
	a.carry("docker socket", l, a.joinDocker)
	a.state.set(func(s *hostagent.Status) { s.Docker = dockerURL(a.o.Docker) })
	return nil
}

// dialDocker connects to the engine: by the fast link, or by SSH where that fails, because the guest's image has none say.
func (a *agent) dialDocker(ctx context.Context) (net.Conn, error) {
	fast, cancel := halfOf(ctx)
	conn, err := a.dialFast(fast, proto.FastDocker)
	cancel()
	if !viaSSH(ctx, err) {
		a.noFast.Store(false)
		return conn, err
	}
	if !a.noFast.Swap(true) && !withoutFastLink(err) {
		a.log.Warn("the machine's fast link fails: the engine is reached by SSH", "error", err)
	}
	conn, sshErr := a.link.dial(ctx, "unix", a.o.engineSocket)
	if sshErr != nil && !withoutFastLink(err) {
		return nil, errors.Join(err, sshErr)
	}
	return conn, sshErr
}

// viaSSH says that a fast link failed in a way that leaves SSH to be tried. A guest that answered and refused has no other answer there.
func viaSSH(ctx context.Context, err error) bool {
	var refused *proto.FastError
	return err != nil && ctx.Err() == nil && !errors.As(err, &refused)
}

// halfOf is a context for a first attempt, which leaves half of the time for a second one.
func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, openWait/2)
	}
	return context.WithTimeout(ctx, time.Until(end)/2)
}

// withoutFastLink says that a fast link failed because the guest has none.
func withoutFastLink(err error) bool {
	return errors.Is(err, errNoFastLink) || errors.Is(err, syscall.ECONNREFUSED)
}

// joinDocker carries one client of the Docker API. It keeps the machine awake while a request is under way.
func (a *agent) joinDocker(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(a.ctx, openWait)
		err := c.HandshakeContext(ctx) // a stranger does not wake the machine
		cancel()
		if err != nil {
			_ = conn.Close()
			return
		}
	}
	err := a.join(conn, reachEngine, func(ctx context.Context, v *visit) (net.Conn, error) {
		guest, err := a.dialDocker(ctx)
		if err != nil {
			return nil, err
		}
		return &apiConn{Conn: guest, visit: v}, nil
	})
	if err != nil {
		refuseAPI(conn, err)
		_ = conn.Close()
	}
}

// refusalWait bounds telling a client of the Docker API why it is not served.
const refusalWait = 5 * time.Second

// refuseAPI answers a request of the Docker API with an error, as the engine words them.
func refuseAPI(conn net.Conn, why error) {
	_ = conn.SetDeadline(time.Now().Add(refusalWait))
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	body, err := json.Marshal(map[string]string{"message": why.Error()})
	if err != nil {
		return
	}
	res := &http.Response{
		StatusCode: http.StatusServiceUnavailable, ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Close: true,
	}
	_ = res.Write(conn) // who asked may be gone
}

// dockerURL is a socket's address as Docker's tools take it.
func dockerURL(path string) string {
	if strings.HasPrefix(path, `\\.\pipe\`) {
		return "npipe://" + strings.ReplaceAll(path, `\`, "/")
	}
	return "unix://" + path
}

// carry accepts connections until the agent ends, and serves each.
func (a *agent) carry(name string, l net.Listener, serve func(net.Conn)) {
	a.onClose(name, func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	a.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if a.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && pause(a.ctx, retryPause) == nil {
					a.log.Warn("a connection was not taken", "at", name, "error", err) // out of file descriptors, say
					continue
				}
				return
			}
			a.work.Go(func() { serve(conn) })
		}
	})
}

// joinStream is join for who speaks no protocol that an error could be told in: the connection is reset.
func (a *agent) joinStream(conn net.Conn, r reach, dial func(context.Context, *visit) (net.Conn, error)) {
	if err := a.join(conn, r, dial); err != nil {
		resetConn(conn)
	}
}

// resetConn ends a connection as a port that nobody listens on does.
func resetConn(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// join joins a connection with one that dial opens in the guest, which is woken for it, until either ends, or the machine falls asleep. On an error the
// connection is still open.
func (a *agent) join(conn net.Conn, r reach, dial func(context.Context, *visit) (net.Conn, error)) error {
	waiting, cancel := context.WithTimeout(a.ctx, wakeWait)
	v, err := a.gate.pass(waiting, r)
	cancel()
	if err != nil {
		return err
	}
	defer v.end()
	l := a.current.Load()
	if l == nil {
		return errStopping // it has ended since
	}
	ctx, cancel := context.WithTimeout(l.ctx, openWait)
	guest, err := dial(ctx, v)
	cancel()
	if err != nil {
		a.log.Debug("a connection to the machine failed", "error", err)
		return fmt.Errorf("reach the machine: %w", err)
	}
	stop := context.AfterFunc(l.ctx, func() { resetConn(conn); guest.Close() })
	defer stop()
	a.relay.Join(conn, guest)
	return nil
}

// listenLoopback listens on a port of the host's loopback: the wished one, or any where that is 0 or taken.
func listenLoopback(wished int) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wished)))
	if err != nil && wished != 0 {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return l, err
}

// forwardSSH serves the guest's SSH server on the host's loopback.
func (a *agent) forwardSSH() (string, error) {
	l, err := listenLoopback(a.o.SSHPort)
	if err != nil {
		return "", fmt.Errorf("serve SSH: %w", err)
	}
	n := a.net.Load()
	a.carry("ssh port", l, func(conn net.Conn) {
		a.joinStream(conn, reachGuest, func(ctx context.Context, _ *visit) (net.Conn, error) {
			return n.Dial(ctx, netip.AddrPortFrom(n.Guest, 22))
		})
	})
	return l.Addr().String(), nil
}

// serveTLS serves the engine's socket to clients with a certificate, on the host's loopback. The machine works without it.
func (a *agent) serveTLS() {
	if a.o.TLS == "" {
		return
	}
	if _, err := serverTLS(a.o.TLS); err != nil {
		a.tlsProblem(err)
		return
	}
	l, err := listenLoopback(a.o.TCPPort)
	if err != nil {
		a.tlsProblem(err)
		return
	}
	// The files are read for each connection: certificates are renewed while machines run.
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return serverTLS(a.o.TLS) }}
	a.carry("tls port", tls.NewListener(l, config), a.joinDocker)
	a.state.set(func(s *hostagent.Status) { s.TCP = l.Addr().String() })
}

func (a *agent) tlsProblem(err error) {
	a.state.problem("tls", &hostagent.Problem{
		Code: "tls-unavailable", Text: fmt.Sprintf("the engine's TCP port is not served: %v", err),
		Hint: "`dev machine regenerate-certs " + a.o.Machine + "` makes new certificates",
	})
}

// serverTLS reads the certificates; clients need one of the same authority.
func serverTLS(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem"))
	if err != nil {
		return nil, fmt.Errorf("read the server's certificate: %w", err)
	}
	file := filepath.Join(dir, "ca.pem")
	ca, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read the certificate authority: %q has no certificate", file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}
