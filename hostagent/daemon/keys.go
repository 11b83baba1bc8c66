// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keyChannel is the channel by which a guest asks the user's SSH agent.
const keyChannel = "auth-agent@openssh.com"

// environment finds a variable.
func environment(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// offerKeys offers the user's SSH agent to the guest, where the user has one. Keys never leave it: the guest asks for signatures.
func (a *agent) offerKeys(client *ssh.Client, session *ssh.Session) {
	address := environment(a.o.Env, "SSH_AUTH_SOCK")
	if address == "" {
		return
	}
	channels := client.HandleChannelOpen(keyChannel)
	if channels == nil {
		return
	}
	a.work.Go(func() {
		for c := range channels {
			a.work.Go(func() { a.serveKeys(c, address) })
		}
	})
	if granted, err := session.SendRequest("auth-agent-req@openssh.com", true, nil); err != nil || !granted {
		a.log.Info("the machine's image does not take SSH agents", "error", err)
	}
}

func (a *agent) serveKeys(c ssh.NewChannel, address string) {
	conn, err := dialKeys(address)
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, "the host's SSH agent does not answer")
		return
	}
	ch, requests, err := c.Accept()
	if err != nil {
		_ = conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	a.relay.Join(conn, channelConn{Channel: ch})
}

// channelConn is a channel as a connection, as far as a relay needs one.
type channelConn struct {
	ssh.Channel
	net.Conn // nil: deadlines and addresses are not asked for
}

func (c channelConn) Read(p []byte) (int, error)  { return c.Channel.Read(p) }
func (c channelConn) Write(p []byte) (int, error) { return c.Channel.Write(p) }
func (c channelConn) Close() error                { return c.Channel.Close() }
