// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed71221737/dev/hostagent"
)

// guestDocker is the engine's socket in the guest.
const guestDocker = "/run/docker.sock"

// openWait bounds opening a connection to the guest for somebody who waits on the host.
const openWait = 30 * time.Second

// serveDocker serves the engine's socket on the host.
func (a *agent) serveDocker() error {
	l, err := listenLocal(a.o.Docker)
	if err != nil {
		return err
	}
	a.carry("docker socket", l, a.dialDocker)
	a.state.set(func(s *hostagent.Status) { s.Docker = dockerURL(a.o.Docker) })
	return nil
}

func (a *agent) dialDocker(ctx context.Context) (net.Conn, error) {
	return a.link.dial(ctx, "unix", a.o.engineSocket)
}

// dockerURL is a socket's address as Docker's tools take it.
func dockerURL(path string) string {
	if strings.HasPrefix(path, `\\.\pipe\`) {
		return "npipe://" + strings.ReplaceAll(path, `\`, "/")
	}
	return "unix://" + path
}

// carry accepts connections until the agent ends, and joins each with one that dial opens in the guest.
func (a *agent) carry(name string, l net.Listener, dial func(context.Context) (net.Conn, error)) {
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
			a.work.Go(func() { a.join(conn, dial) })
		}
	})
}

func (a *agent) join(conn net.Conn, dial func(context.Context) (net.Conn, error)) {
	ctx, cancel := context.WithTimeout(a.ctx, openWait)
	guest, err := dial(ctx)
	cancel()
	if err != nil {
		a.log.Debug("a connection to the machine failed", "error", err)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // reset, as a port that nobody listens on
		}
		_ = conn.Close()
		return
	}
	stop := context.AfterFunc(a.ctx, func() { conn.Close(); guest.Close() })
	defer stop()
	a.relay.Join(conn, guest)
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
	a.carry("ssh port", l, func(ctx context.Context) (net.Conn, error) { return n.Dial(ctx, netip.AddrPortFrom(n.Guest, 22)) })
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
	a.carry("tls port", tls.NewListener(l, config), a.dialDocker)
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
