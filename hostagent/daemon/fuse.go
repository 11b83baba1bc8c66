// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/fileevents"
	"github.com/seed71221737/dev/hostagent/share"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// ownShare is a share of our own. Its server lives as long as the agent: what the guest has open outlasts the machine's sleep.
type ownShare struct {
	share   Share
	server  *share.Server
	watcher *fileevents.Watcher // nil where folders cannot be watched
}

// service is what the guest is asked for.
func (s *ownShare) service() string {
	m := proto.Mount{Source: s.share.Tag, Target: s.share.Guest, Type: hostagent.ShareFUSE, ReadOnly: s.share.ReadOnly}
	if s.server.KeepsOwners() {
		m.Options = proto.MountOwners
	}
	text, _ := json.Marshal(m) // cannot fail
	return proto.FastShare + " " + string(text)
}

// openShares opens the folders that this side serves itself, and watches those that the guest is told of.
func (a *agent) openShares() {
	for _, wanted := range a.o.Shares {
		if wanted.Type == hostagent.ShareVirtiofs {
			a.openTree(wanted)
			continue
		}
		s, err := a.openShare(wanted)
		if err != nil {
			a.shareProblem(wanted, err)
			continue
		}
		a.own = append(a.own, s)
		a.onClose("share "+wanted.Tag, s.close)
	}
}

func (a *agent) openShare(wanted Share) (*ownShare, error) {
	wanted, err := wanted.withGuest(runtime.GOOS)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(wanted.Host); err != nil || !info.IsDir() {
		return nil, errors.Join(errors.New("it is no folder"), err)
	}
	o := share.Options{Folder: wanted.Host, ReadOnly: wanted.ReadOnly, State: filepath.Join(filepath.Dir(a.o.Network), wanted.Tag+".owners"), Logger: a.log}
	s := &ownShare{share: wanted}
	unwatched := func(err error) { a.watchProblem(wanted, err) }
	if s.watcher, err = fileevents.Open(wanted.Host, fileevents.Options{Problem: unwatched, Logger: a.log}); err != nil {
		unwatched(err)
	} else {
		o.Watcher, o.Journal, o.Events = s.watcher, s.watcher.Ledger(), s.watcher
	}
	if s.server, err = share.New(o); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends the watching first: the server waits for nobody.
func (s *ownShare) close() error {
	var err error
	if s.watcher != nil {
		err = s.watcher.Close()
	}
	if s.server != nil {
		err = errors.Join(err, s.server.Close())
	}
	return err
}

// watchProblem tells that changes on the host are not seen at once in the machine, and by programs that watch files not at all.
func (a *agent) watchProblem(s Share, err error) {
	p := &hostagent.Problem{
		Code: "file-events", Text: fmt.Sprintf("not all folders of %q can be watched: in the machine, changes there show after a second, and programs that wait for them see none: %v", s.Host, err),
		Hint: "start the machine again once that is mended",
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		p.Hint = hinted.Hint() + ", then start the machine again"
	}
	a.state.problem("file events "+s.Tag, p)
}

// carrying is an attempt to bring a share into the guest.
type carrying struct {
	share *ownShare
	ready chan struct{} // closed when it is there

	mu   sync.Mutex
	last error // why it is not
}

func (c *carrying) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// carryShares begins to bring the shares into the guest of a life. Nothing waits for them before mountShares, which containers wait for.
func (a *agent) carryShares(l *life) {
	for _, s := range a.own {
		c := &carrying{share: s, ready: make(chan struct{})}
		l.carried = append(l.carried, c)
		l.work.Go(func() { a.carryShare(l, c) })
	}
}

// carryPause is between attempts to reach a guest that had been reached; while it boots, they are more frequent.
const carryPause = time.Second

// carryShare serves a share to the guest of a life, over one connection after another.
func (a *agent) carryShare(l *life, c *carrying) {
	service, was, lost := c.share.service(), false, false
	for {
		err := a.carryOnce(l, c, service, &was)
		if l.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.last = err
		c.mu.Unlock()
		wait := retryPause
		if was {
			a.log.Warn("a share lost its connection", "share", c.share.share.Tag, "error", err)
			wait = carryPause
			if lost { // also on another attempt; the next connection takes that back
				a.carryProblem(c)
			}
			lost = true
		}
		if pause(l.ctx, wait) != nil {
			return
		}
	}
}

// carryOnce serves one connection; it sets was when there was one.
func (a *agent) carryOnce(l *life, c *carrying, service string, was *bool) error {
	dialing, cancel := context.WithTimeout(l.ctx, connectWait)
	if a.current.Load() == l && l.up {
		cancel()
		dialing, cancel = context.WithTimeout(l.ctx, fastDialWait)
	}
	conn, err := a.dialFast(dialing, service)
	cancel()
	if err != nil {
		return err
	}
	if !*was {
		*was = true
		close(c.ready)
	}
	a.state.problem("share "+c.share.share.Tag, nil)
	return c.share.server.Serve(l.ctx, conn)
}

// carriedWait is how long a guest that can be reached may take to mount a share.
const carriedWait = 20 * time.Second

// awaitShares waits until the shares are in the guest. What is not there becomes a problem, and is tried further.
func (a *agent) awaitShares(ctx context.Context, l *life) {
	ctx, cancel := context.WithTimeout(ctx, carriedWait)
	defer cancel()
	for _, c := range l.carried {
		select {
		case <-c.ready:
		case <-ctx.Done():
			a.carryProblem(c)
		}
	}
}

// carryProblem tells why a share is not in the guest.
func (a *agent) carryProblem(c *carrying) {
	err := c.err()
	p := &hostagent.Problem{
		Code: "share-unavailable", Text: fmt.Sprintf("folder %q is not in the machine: %v", c.share.share.Host, err),
		Hint: "see `dev machine logs --console " + a.o.Machine + "`; it is tried again",
	}
	var refused *proto.FastError
	select {
	case <-c.ready: // it was there: the image knows of it
		a.state.problem("share "+c.share.share.Tag, p)
		return
	default:
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &refused) && strings.Contains(refused.Text, "does not know") {
		p.Text = fmt.Sprintf("folder %q is not in the machine: its image is older than shares of type %s", c.share.share.Host, hostagent.ShareFUSE)
		p.Hint = "upgrade the machine's image: `dev machine upgrade " + a.o.Machine + "`"
	}
	a.state.problem("share "+c.share.share.Tag, p)
}
