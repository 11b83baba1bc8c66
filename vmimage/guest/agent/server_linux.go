// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// handshakeTimeout is how long a peer may take to authenticate; maxPending how many may be at it at once.
const (
	handshakeTimeout = 30 * time.Second
	maxPending       = 32
)

// Server is the agent. Set the fields, then Serve.
type Server struct {
	// HostKey is a private key in PEM, AuthorizedKeys a file's contents in that format.
	HostKey, AuthorizedKeys []byte
	// Shell runs interactive sessions and commands.
	Shell string
	// Env is what sessions are started with.
	Env []string
	// AgentSocket is where programs and containers in the machine reach the SSH agent of the user, through the newest connection that offers one
	// (auth-agent-req@openssh.com). Empty: not offered.
	AgentSocket string
	// Control answers control requests; nil: the subsystem is not there.
	Control *Control
	// Settle waits until the host has what programs have written to its folders; what sessions say comes after that. It may be nil.
	Settle func()
	Log    *slog.Logger

	keyAgents keyAgents
	mu        sync.Mutex // of HostKey, AuthorizedKeys and Env, once it serves
}

// Renew has the server let in with other keys, and start sessions with another environment, from now on. Connections that are there stay.
func (s *Server) Renew(hostKey, authorizedKeys []byte, env []string) error {
	if _, err := makeConfig(hostKey, authorizedKeys); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.HostKey, s.AuthorizedKeys, s.Env = hostKey, authorizedKeys, env
	return nil
}

// environment is what a session is started with.
func (s *Server) environment() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.Env)
}

// Serve accepts connections of all listeners until ctx ends or one of them fails, and waits for what runs on them to end.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if _, err := s.config(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.AgentSocket != "" {
		wg.Go(func() { s.serveKeyAgent(ctx) })
	}
	for _, l := range listeners {
		wg.Go(func() {
			if err := s.accept(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// accept serves one listener's connections.
func (s *Server) accept(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	pending := make(chan struct{}, maxPending)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept connections: %w", err)
		}
		select {
		case pending <- struct{}{}:
		default:
			conn.Close() // somebody knocks too often
			continue
		}
		wg.Go(func() { s.serve(ctx, conn, func() { <-pending }) })
	}
}

// config is made for each connection: the keys may change.
func (s *Server) config() (*ssh.ServerConfig, error) {
	s.mu.Lock()
	hostKey, authorizedKeys := s.HostKey, s.AuthorizedKeys
	s.mu.Unlock()
	return makeConfig(hostKey, authorizedKeys)
}

func makeConfig(hostKey, authorizedKeys []byte) (*ssh.ServerConfig, error) {
	key, err := ssh.ParsePrivateKey(hostKey)
	if err != nil {
		return nil, fmt.Errorf("read the machine's host key: %w", err)
	}
	allowed, err := parseKeys(authorizedKeys)
	if err != nil {
		return nil, err
	}
	c := &ssh.ServerConfig{
		MaxAuthTries:  6,
		ServerVersion: "SSH-2.0-dev",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, k := range allowed {
				if subtle.ConstantTimeCompare(k, key.Marshal()) == 1 {
					return &ssh.Permissions{}, nil
				}
			}
			return nil, errors.New("this key may not log in")
		},
	}
	c.AddHostKey(key)
	return c, nil
}

func parseKeys(file []byte) ([][]byte, error) {
	var keys [][]byte
	for len(bytes.TrimSpace(file)) > 0 {
		key, _, _, rest, err := ssh.ParseAuthorizedKey(file)
		if err != nil {
			return nil, fmt.Errorf("read the keys that may log in: %w", err)
		}
		keys = append(keys, key.Marshal())
		file = rest
	}
	return keys, nil
}

// serve authenticates one connection and serves its channels until it ends. authenticated is called when it is through with the first part.
func (s *Server) serve(ctx context.Context, conn net.Conn, authenticated func()) {
	defer conn.Close()
	defer s.logPanic()
	config, err := s.config()
	if err != nil {
		authenticated()
		s.Log.Error("let somebody in", "error", err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout)) // a connection without deadlines is a test's
	sc, channels, requests, err := ssh.NewServerConn(conn, config)
	authenticated()
	if err != nil {
		s.Log.Debug("login failed", "from", conn.RemoteAddr().String(), "error", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { sc.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { answerGlobal(requests) })
	defer s.keyAgents.remove(sc)
	for c := range channels {
		wg.Go(func() {
			defer s.logPanic()
			s.channel(ctx, sc, c)
		})
	}
}

func (s *Server) logPanic() {
	if p := recover(); p != nil {
		s.Log.Error("a connection failed", "panic", p)
	}
}

// answerGlobal answers keep-alives; nothing else is offered.
func answerGlobal(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(r.Type == "keepalive@openssh.com", nil) // a dead connection ends the loop
		}
	}
}

func (s *Server) channel(ctx context.Context, conn ssh.Conn, c ssh.NewChannel) {
	switch c.ChannelType() {
	case "session":
		s.session(ctx, conn, c)
	case "direct-streamlocal@openssh.com":
		var p struct {
			Path     string
			Reserved string
			Port     uint32
		}
		if err := ssh.Unmarshal(c.ExtraData(), &p); err != nil {
			_ = c.Reject(ssh.ConnectionFailed, "malformed request")
			return
		}
		forward(ctx, c, "unix", p.Path)
	case "direct-tcpip":
		var p struct {
			Host   string
			Port   uint32
			Origin string
			From   uint32
		}
		if err := ssh.Unmarshal(c.ExtraData(), &p); err != nil {
			_ = c.Reject(ssh.ConnectionFailed, "malformed request")
			return
		}
		forward(ctx, c, "tcp", net.JoinHostPort(p.Host, strconv.FormatUint(uint64(p.Port), 10)))
	default:
		_ = c.Reject(ssh.UnknownChannelType, "not offered")
	}
}

// halfCloser is a connection whose sending side can end first; TCP and unix sockets can.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// forward joins a channel with a socket in the machine, each direction ending by itself: the Docker API's attach and exec rely on it.
func forward(ctx context.Context, c ssh.NewChannel, network, address string) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := c.Accept()
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	join(ctx, ch, conn)
}

// join carries bytes between a channel and a socket until both directions have ended or ctx has, and closes both.
func join(ctx context.Context, ch ssh.Channel, conn net.Conn) {
	defer conn.Close()
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(conn, ch) // either end may go away at any time
		if h, ok := conn.(halfCloser); ok {
			_ = h.CloseWrite()
		}
	})
	wg.Go(func() {
		_, _ = io.Copy(ch, conn)
		_ = ch.CloseWrite()
	})
	wg.Wait()
}
