// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"
)

// keyAgents are the connections whose other end offers an SSH agent, the newest last. The zero value is ready; safe for concurrent use.
type keyAgents struct {
	mu    sync.Mutex
	conns []ssh.Conn
}

// add makes a connection the first to ask. It stays until remove.
func (k *keyAgents) add(c ssh.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(slices.DeleteFunc(k.conns, func(o ssh.Conn) bool { return o == c }), c)
}

func (k *keyAgents) remove(c ssh.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = slices.DeleteFunc(k.conns, func(o ssh.Conn) bool { return o == c })
}

// open opens a channel to the newest agent that answers.
func (k *keyAgents) open() (ssh.Channel, error) {
	k.mu.Lock()
	conns := slices.Clone(k.conns)
	k.mu.Unlock()
	for _, c := range slices.Backward(conns) {
		ch, requests, err := c.OpenChannel("auth-agent@openssh.com", nil)
		if err != nil {
			continue
		}
		go ssh.DiscardRequests(requests)
		return ch, nil
	}
	return nil, errors.New("no connection to this machine offers an SSH agent")
}

// serveKeyAgent passes what is said at AgentSocket on to the user's SSH agent, until ctx ends. Everybody who can open the socket may use it: in a
// machine that is root, and containers that were given it.
func (s *Server) serveKeyAgent(ctx context.Context) {
	l, err := listenUnix(s.AgentSocket)
	if err != nil {
		s.Log.Error("SSH agents are not passed on", "error", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Error("SSH agents are no longer passed on", "error", err)
			}
			return
		}
		wg.Go(func() {
			defer s.logPanic()
			ch, err := s.keyAgents.open()
			if err != nil {
				s.Log.Debug("pass on an SSH agent", "error", err)
				conn.Close()
				return
			}
			join(ctx, ch, conn)
		})
	}
}

// listenUnix listens at a path for every user, in the place of a socket that an earlier process left.
func listenUnix(name string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	_ = os.Remove(name) // listening says it better
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o666); err != nil { // users in containers are not root
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
