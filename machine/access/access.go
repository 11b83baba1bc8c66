// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package access is the way into a machine: logins, commands and file copies over its SSH server, with a client of our own. Neither OpenSSH nor the
// user's SSH settings take part.
//
// A Login says where a machine is and who may come in; Dial makes a connection of it. Run and Copy work on such connections; they never
// print, and the terminal they use is the caller's.
package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Login is how to get into a machine.
type Login struct {
	Machine string // for messages
	Address string // host:port of the SSH server
	User    string
	Key     ssh.Signer
	HostKey ssh.PublicKey // the only one that is accepted
}

// dialTimeout bounds connecting and logging in. A machine under emulation and load takes seconds for the key exchange.
const dialTimeout = 60 * time.Second

// ErrHostKey says that something else answers at the machine's address.
var ErrHostKey = errors.New("what answers there is not this machine: it has another host key")

// Dial logs in. The caller closes the client. ctx bounds the dialling only.
func Dial(ctx context.Context, l Login) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Address)
	if err != nil {
		return nil, fmt.Errorf("log in to machine %q: %w", l.Machine, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, l.Address, &ssh.ClientConfig{
		User: l.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(l.Key)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !bytes.Equal(key.Marshal(), l.HostKey.Marshal()) {
				return ErrHostKey
			}
			return nil
		},
		HostKeyAlgorithms: []string{l.HostKey.Type()},
	})
	if err != nil {
		_ = conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("log in to machine %q: %w", l.Machine, err)
	}
	return ssh.NewClient(c, channels, requests), nil
}
