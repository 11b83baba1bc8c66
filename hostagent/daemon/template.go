// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// template is one that is wanted of a life: the memory of a machine that has no data yet, for new machines to start from.
type template struct {
	file string
	of   Templater
}

// wantsTemplate says whether this life, which boots, is one to make a template of; nil: it is not.
func (a *agent) wantsTemplate(ctx context.Context) *template {
	t, ok := a.o.Memory.(Templater)
	if !ok || a.withoutTemplate {
		return nil
	}
	file, wanted := t.Template(ctx)
	if !wanted {
		return nil
	}
	return &template{file: file, of: t}
}

// errTemplate says that a guest was lost to making a template of it.
var errTemplate = errors.New("the machine was lost when its first state was kept for new machines")

// makeTemplate saves the guest, as it is before it has any data, under an identity that no machine has: whoever starts from it brings its own. The guest goes on
// with its own; without a template, if none comes about. Shares are not there yet, and nobody is connected.
func (a *agent) makeTemplate(ctx context.Context, l *life) error {
	t := l.template
	if t == nil {
		return nil
	}
	own, err := a.decodeSeed()
	if err != nil {
		return err
	}
	s, err := a.link.get(ctx)
	if err != nil {
		return err
	}
	select {
	case <-s.prepared: // who starts from it relies on that
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	stranger, noted, err := makeStranger(*own, l.mac)
	if err != nil {
		return err
	}
	noted.Prepared, noted.Engine = !a.slowLoopback.Load(), a.state.snapshot().Engine
	if err := a.engine.Close(); err != nil {
		return err
	}
	failed := a.saveTemplate(ctx, l, t, stranger, noted)
	// Whether it worked or not, the guest is itself again, by whichever secret it knows.
	l.notes = noted
	a.link.begin(l)
	a.net.Load().Reopen()
	if err := a.tellThaw(ctx, l, own); err != nil {
		return errors.Join(errTemplate, err, failed)
	}
	l.notes = notes{}
	if failed != nil {
		a.log.Warn("no template was made for new machines", "error", failed)
		return a.dropTemplate(ctx)
	}
	return a.link.connect(ctx, l)
}

// dropTemplate removes what was begun, and reconnects.
func (a *agent) dropTemplate(ctx context.Context) error {
	if err := a.o.Memory.Drop(ctx, "no template was made"); err != nil {
		a.log.Warn("remove an unfinished template", "error", err)
	}
	return a.link.connect(ctx, a.current.Load())
}

// saveTemplate saves the guest as a stranger.
func (a *agent) saveTemplate(ctx context.Context, l *life, t *template, stranger *proto.Seed, noted notes) error {
	vm, ok := l.vm.(hostagent.Snapshotter)
	if !ok {
		return errors.New("the driver is not able to")
	}
	thaw := proto.AfterRestore{Time: time.Now().Round(0), Seed: stranger}
	if err := a.link.call(ctx, proto.MethodThaw, thaw, nil); err != nil {
		return err
	}
	if err := a.link.call(ctx, proto.MethodFreeze, nil, nil); err != nil {
		return err
	}
	if err := a.link.end(); err != nil {
		return err
	}
	a.net.Load().Quiesce()
	if err := vm.Snapshot(ctx, t.file, t.of.Paused); err != nil {
		return err
	}
	data, err := json.Marshal(noted)
	if err != nil {
		return err
	}
	return t.of.CommitTemplate(ctx, Saved{Template: true, Notes: data})
}

// makeStranger is a seed like another, of a machine that does not exist, and what is to be known to talk to it.
func makeStranger(s proto.Seed, mac string) (*proto.Seed, notes, error) {
	login, loginPEM, err := newKey()
	if err != nil {
		return nil, notes{}, err
	}
	host, hostPEM, err := newKey()
	if err != nil {
		return nil, notes{}, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	s.Hostname, s.MachineID, s.HostKey, s.LinkSecret = "dev", hex.EncodeToString(id), hostPEM, make([]byte, proto.FastSecretSize)
	_, _ = rand.Read(s.LinkSecret)
	s.AuthorizedKeys, s.Entropy = []string{string(ssh.MarshalAuthorizedKey(login.PublicKey()))}, nil
	return &s, notes{LinkSecret: s.LinkSecret, MAC: mac, Login: loginPEM, Host: string(ssh.MarshalAuthorizedKey(host.PublicKey()))}, nil
}

func newKey() (ssh.Signer, string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	return signer, string(pem.EncodeToMemory(block)), nil
}
