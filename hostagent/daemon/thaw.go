// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// notes are kept with a memory state: what has to be known of a guest to talk to it before it has been told anything new.
type notes struct {
	LinkSecret []byte `json:"link_secret,omitempty"`
	MAC        string `json:"mac,omitempty"`
	// Login (PEM) and Host (authorized_keys' format) are the keys of a guest with another identity than the machine's.
	Login string `json:"login,omitempty"`
	Host  string `json:"host,omitempty"`
	// Engine is the engine's version.
	Engine string `json:"engine,omitempty"`
	// Prepared: what prepare does to a guest is done.
	Prepared bool `json:"prepared,omitempty"`
	// Lost are file systems, by share, that containers have of shares which were taken from the guest.
	Lost map[string][]string `json:"lost,omitempty"`
}

// keys are those with which the guest lets us in.
func (n notes) keys(o Options) (login ssh.Signer, host ssh.PublicKey, err error) {
	if n.Login == "" || n.Host == "" {
		return o.Key, o.HostKey, nil
	}
	login, err = ssh.ParsePrivateKey([]byte(n.Login))
	if err != nil {
		return nil, nil, fmt.Errorf("read the saved guest's key: %w", err)
	}
	host, _, _, _, err = ssh.ParseAuthorizedKey([]byte(n.Host))
	if err != nil {
		return nil, nil, fmt.Errorf("read the saved guest's host key: %w", err)
	}
	return login, host, nil
}

// noteLife is what is to be known of the guest that is about to be saved.
func (a *agent) noteLife(l *life) notes {
	n := notes{MAC: l.mac, Engine: a.state.snapshot().Engine, Prepared: !a.slowLoopback.Load()}
	if secret := a.linkSecret.Load(); secret != nil {
		n.LinkSecret = *secret
	}
	for _, s := range l.shares {
		if len(s.dead) > 0 {
			if n.Lost == nil {
				n.Lost = map[string][]string{}
			}
			n.Lost[s.share.Tag] = s.dead
		}
	}
	return n
}

// takeMemory begins a life with the saved memory; nil, where there is none that fits.
func (a *agent) takeMemory(ctx context.Context) *life {
	if a.o.Memory == nil {
		return nil
	}
	saved, err := a.o.Memory.Take(ctx)
	if err != nil && ctx.Err() == nil {
		saved.File, saved.Why = "", err.Error()
	}
	if saved.Why != "" {
		a.state.say("the saved memory is not used, so that the machine boots: " + saved.Why)
	}
	if saved.File == "" || ctx.Err() != nil {
		return nil
	}
	l := a.newLife()
	l.restored, l.saved = true, saved
	if len(saved.Notes) > 0 {
		if err := json.Unmarshal(saved.Notes, &l.notes); err != nil {
			a.log.Warn("read the notes of the saved memory", "error", err) // the guest may be reached without
		}
	}
	a.log.Info("restoring the saved memory", "suspended", saved.Suspended)
	return l
}

// drop removes the saved memory, if any.
func (a *agent) drop(why string) error {
	if a.o.Memory == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	return a.o.Memory.Drop(ctx, why)
}

const (
	// thawPause is between attempts to reach a restored guest: it answers within milliseconds of its start.
	thawPause = 20 * time.Millisecond
	// thawWait bounds what the guest does to be up to date.
	thawWait = 60 * time.Second
)

// thaw tells a restored guest what has changed since it was saved.
func (a *agent) thaw(ctx context.Context, l *life) error {
	seed, err := a.readSeed(l)
	if err != nil {
		return err
	}
	return a.tellThaw(ctx, l, seed)
}

// tellThaw tells it as soon as the guest listens.
func (a *agent) tellThaw(ctx context.Context, l *life, seed *proto.Seed) error {
	for {
		err := a.tryThaw(ctx, l, seed)
		var refused *proto.Error
		if err == nil || errors.As(err, &refused) {
			return err
		}
		a.log.Debug("thaw", "error", err)
		if ctx.Err() != nil || isKeyError(err) || pause(ctx, thawPause) != nil {
			return fmt.Errorf("the restored machine's agent does not answer: %w", err)
		}
	}
}

// readSeed reads back what was written for a guest that will not boot, and so not read it; nil where nothing changed, because the guest was never gone.
func (a *agent) readSeed(l *life) (*proto.Seed, error) {
	if l.saved.File == "" {
		return nil, nil //nolint:nilnil // nothing new
	}
	return a.decodeSeed()
}

func (a *agent) decodeSeed() (*proto.Seed, error) {
	f, err := os.Open(a.o.Seed)
	if err != nil {
		return nil, fmt.Errorf("read the seed: %w", err)
	}
	defer f.Close()
	return proto.DecodeSeed(f)
}

func (a *agent) tryThaw(ctx context.Context, l *life, seed *proto.Seed) error {
	control, hangUp, err := a.openThaw(ctx, l)
	if err != nil {
		return err
	}
	defer hangUp()
	ctx, cancel := context.WithTimeout(ctx, thawWait)
	defer cancel()
	p := proto.AfterRestore{Time: time.Now().Round(0), Entropy: make([]byte, 64), Seed: seed}
	_, _ = rand.Read(p.Entropy) // never fails
	var done proto.AfterRestored
	if err := control.Call(ctx, proto.MethodThaw, p, &done); err != nil {
		if a.link.peek() != nil && !errors.As(err, new(*proto.Error)) {
			a.link.replace(nil) // a broken one
		}
		return err
	}
	for _, w := range done.Warnings {
		a.state.say(w)
	}
	return nil
}

// openThaw reaches a guest in the state in which it was saved: by the fast link, or by SSH where its image has none.
func (a *agent) openThaw(ctx context.Context, l *life) (*proto.Client, func(), error) {
	secrets := [][]byte{l.notes.LinkSecret}
	if now := a.linkSecret.Load(); now != nil {
		secrets = append(secrets, *now) // an attempt before this one may have told it
	}
	var err error
	for _, secret := range secrets {
		if len(secret) != proto.FastSecretSize {
			continue
		}
		var control *proto.Client
		if control, err = a.dialControl(ctx, secret); err == nil {
			return control, func() { _ = control.Close() }, nil
		}
	}
	if err != nil && !withoutFastLink(err) {
		return nil, nil, err
	}
	if s := a.link.peek(); s != nil {
		return s.control, func() {}, nil
	}
	login, host, err := l.notes.keys(a.o)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.link.open(ctx, l, login, host)
	if err != nil {
		return nil, nil, err
	}
	a.link.replace(s) // which is the way to the engine, too
	return s.control, func() {}, nil
}

// dialControl opens a control stream by the fast link.
func (a *agent) dialControl(ctx context.Context, secret []byte) (*proto.Client, error) {
	n := a.net.Load()
	dialing, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	conn, err := n.Dial(dialing, netip.AddrPortFrom(n.Guest, proto.FastPort))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(fastDialWait))
	if err := proto.FastDial(conn, secret, proto.FastControl); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	control, err := proto.NewClient(conn, "dev host agent")
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return control, nil
}
