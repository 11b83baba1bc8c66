// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// newLinkSecret makes the secret of the fast link anew, for the seed that is about to be written.
func (a *agent) newLinkSecret() []byte {
	secret := make([]byte, proto.FastSecretSize)
	_, _ = rand.Read(secret) // never fails
	a.linkSecret.Store(&secret)
	return secret
}

// errNoFastLink says that the guest has no fast link: its image is older than this program.
var errNoFastLink = errors.New("the machine's image has no fast link")

// fastDialWait bounds the greeting of a guest that is busy, under emulation.
const fastDialWait = 30 * time.Second

// dialFast opens a service of the guest's over the fast link. A guest that refuses it is a *proto.FastError.
func (a *agent) dialFast(ctx context.Context, service string) (net.Conn, error) {
	n, secret := a.net.Load(), a.linkSecret.Load()
	if n == nil || secret == nil {
		return nil, errNoFastLink
	}
	conn, err := n.Dial(ctx, netip.AddrPortFrom(n.Guest, proto.FastPort))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(fastDialWait)) // this kind of connection has deadlines
	if err := proto.FastDial(conn, *secret, service); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	if !stop() {
		return nil, errors.Join(context.Cause(ctx), conn.Close())
	}
	return conn, nil
}
