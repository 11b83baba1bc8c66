// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	// bringBackWait bounds bringing a share back: the guest alone takes six seconds to let a device go.
	bringBackWait = 3 * time.Minute
	// stalePause is between looks at containers that have to be started again.
	stalePause = 10 * time.Second
	// endlessly is how soon after it was brought back a share may not be lost again: its server would never do anything else.
	endlessly = 10 * time.Second
)

// watchShare waits for the end of a share's server, and brings the share back.
func (a *agent) watchShare(l *life, s *sharing) {
	for {
		s.mu.Lock()
		p := s.now
		s.mu.Unlock()
		if p == nil {
			return
		}
		select {
		case <-l.ctx.Done():
			return
		case <-p.done:
		}
		if l.ctx.Err() != nil || s.leaving.Load() {
			return
		}
		a.log.Warn("a share's server ended", "share", s.share.Tag, "error", p.err, "said", p.tail.String())
		if !a.shareLost(l, s) {
			return
		}
	}
}

// shareLost brings a share back whose server went away; ok tells that it did. The relay has taken the server's place: what waits for it fails, and nothing hangs.
func (a *agent) shareLost(l *life, s *sharing) (ok bool) {
	if a.awaitUp(l.ctx) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(l.ctx, bringBackWait)
	defer cancel()
	done, err := s.change(ctx)
	if err != nil {
		return false
	}
	defer done()
	if s.leaving.Load() {
		return false
	}
	a.state.problem("share "+s.share.Tag, &hostagent.Problem{
		Code: "share-lost", Text: fmt.Sprintf("folder %q is lost to the machine, as virtiofsd ended, and is being brought back", s.share.Host),
		Hint: "wait some seconds; if it stays, start the machine again: `dev machine restart " + a.o.Machine + "`",
	})
	if time.Since(s.back) < endlessly {
		err = errors.New("it ends again and again")
	} else {
		err = a.bringBack(ctx, l, s)
	}
	if err == nil {
		dead := slices.Clone(s.dead)
		l.work.Go(func() { a.mendContainers(l, s, dead) })
		return true
	}
	if l.ctx.Err() == nil {
		a.state.problem("share "+s.share.Tag, &hostagent.Problem{
			Code: "share-lost", Text: fmt.Sprintf("folder %q is lost to the machine: virtiofsd ended, and the folder could not be brought back: %v", s.share.Host, err),
			Hint: "start the machine again: `dev machine restart " + a.o.Machine + "`",
		})
	}
	return false
}

// awaitUp waits until the machine has come to where it can be used.
func (a *agent) awaitUp(ctx context.Context) error {
	for {
		switch a.state.snapshot().Phase {
		case hostagent.Running, hostagent.Degraded:
			return nil
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// bringBack takes the dead device from the guest and gives it a new one.
func (a *agent) bringBack(ctx context.Context, l *life, s *sharing) error {
	p, ok := l.vm.(hostagent.Plugger)
	if !ok {
		return errors.New("this machine's driver cannot change devices while it runs")
	}
	var was proto.Unmounted
	m := s.mount()
	if err := a.link.call(ctx, proto.MethodUnmount, proto.Unmount{Target: m.Target, Lazy: true}, &was); err != nil {
		return err
	}
	if was.Device != "" {
		s.dead = append(s.dead, was.Device)
	}
	if err := p.Unplug(ctx, s.share.Tag); err != nil {
		return err
	}
	if err := s.disconnect(); err != nil {
		return err
	}
	s.back = time.Now()
	if err := a.serveShare(ctx, s); err != nil {
		return err
	}
	if err := p.Plug(ctx, hostagent.ShareLink{Tag: s.share.Tag, Socket: s.socket}); err != nil {
		return err
	}
	return a.mountSoon(ctx, m)
}

// mountSoon mounts a share whose device the guest may not have found yet.
func (a *agent) mountSoon(ctx context.Context, m proto.Mount) error {
	for {
		err := a.link.call(ctx, proto.MethodMount, m, nil)
		if err == nil {
			return nil
		}
		if pause(ctx, retryPause) != nil {
			return err
		}
	}
}

// mendContainers gives the folder back to containers that were started with it, and names those in which programs still use what is dead, until there are none,
// or the share is lost again.
func (a *agent) mendContainers(l *life, s *sharing, dead []string) {
	var told *hostagent.Problem
	for {
		stale, err := a.replaceMounts(l.ctx, s, dead)
		done, turn := s.change(l.ctx)
		if turn != nil {
			return
		}
		current := len(s.dead) == len(dead) && !s.leaving.Load()
		p, again := staleProblem(s.share.Host, a.o.Machine, stale, err)
		switch {
		case !current: // the problem is another one now
		case err == nil && p == nil:
			a.state.problem("share "+s.share.Tag, nil)
			s.dead = nil
		case p == nil:
			a.log.Warn("bring a folder back to containers", "share", s.share.Tag, "error", err)
		case told == nil || *told != *p:
			told = p
			a.state.problem("share "+s.share.Tag, p)
		}
		done()
		if !current || !again || pause(l.ctx, stalePause) != nil {
			return
		}
	}
}

// staleProblem is what is wrong with containers that were started with a folder which was lost and is back; nil: nothing that is known. again says that it is
// worth a look later.
func staleProblem(folder, machine string, stale []string, err error) (p *hostagent.Problem, again bool) {
	if old := (*proto.Error)(nil); errors.As(err, &old) && old.Code == proto.CodeUnknown {
		return &hostagent.Problem{
			Code: "share-stale", Text: fmt.Sprintf("folder %q was lost and is back, but this machine's image is too old to give it back to containers that run", folder),
			Hint: "start the machine again: `dev machine restart " + machine + "`; `dev machine upgrade " + machine + "` brings a newer image",
		}, false
	}
	if err != nil || len(stale) == 0 {
		return nil, err != nil
	}
	names := strings.Join(stale, " ")
	return &hostagent.Problem{
		Code: "share-stale", Text: fmt.Sprintf("folder %q was lost and is back, but programs in these containers still use what was lost: %s", folder, names),
		Hint: "start them again: `docker restart " + names + "`",
	}, true
}

// replaceMounts repairs containers, and names those that have to be started again.
func (a *agent) replaceMounts(ctx context.Context, s *sharing, dead []string) (stale []string, err error) {
	for _, device := range dead {
		var done proto.Replaced
		if err := a.link.call(ctx, proto.MethodReplace, proto.Replace{Device: device, Target: s.share.Guest}, &done); err != nil {
			return nil, err
		}
		if len(done.Repaired) > 0 {
			a.log.Info("brought a folder back to containers", "share", s.share.Tag, "containers", done.Repaired)
		}
		stale = append(stale, a.containerNames(ctx, done.Stale)...)
	}
	slices.Sort(stale)
	return slices.Compact(stale), nil
}

// containerNames are what people call containers.
func (a *agent) containerNames(ctx context.Context, ids []string) (names []string) {
	for _, id := range ids {
		if c, err := a.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err == nil {
			id = strings.TrimPrefix(c.Container.Name, "/")
		}
		names = append(names, id)
	}
	return names
}
