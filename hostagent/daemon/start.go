// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/network"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// stageError says at which stage a start failed.
type stageError struct {
	stage hostagent.Stage
	err   error
}

func (e *stageError) Error() string { return fmt.Sprintf("stage %q: %v", e.stage, e.err) }
func (e *stageError) Unwrap() error { return e.err }

// deadlineError is the cause of a stage's context that took too long.
type deadlineError struct{ limit time.Duration }

func (e *deadlineError) Error() string { return fmt.Sprintf("not done after %v", e.limit) }
func (e *deadlineError) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// start makes what lasts as long as the agent, and begins the machine's first life.
func (a *agent) start(ctx context.Context) error {
	a.state.stage(hostagent.StageProcess, "")
	if err := a.within(ctx, hostagent.StageProcess, nil, a.startNetwork); err != nil {
		return &stageError{hostagent.StageProcess, err}
	}
	a.openShares()
	return a.begin(ctx)
}

// begin begins a life: with saved memory where there is some that fits, and otherwise, or when that fails, by booting.
func (a *agent) begin(ctx context.Context) error {
	if l := a.takeMemory(ctx); l != nil {
		err := a.live(ctx, l)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := a.abandon(); err != nil {
			return err
		}
		if err := errors.Join(l.end(), a.drop(err.Error())); err != nil {
			a.log.Warn("put a machine away that could not be restored", "error", err)
		}
		a.current.Store(nil)
		a.state.say("the saved memory could not be used, so that the machine boots: " + err.Error())
	}
	return a.bootUp(ctx)
}

// boot begins a life by booting.
func (a *agent) boot(ctx context.Context) error {
	a.firstBoot.Do(func() { close(a.boots) })
	l := a.newLife()
	a.net.Load().Reopen()
	return a.live(ctx, l)
}

// live brings a life to where the machine can be used, stage by stage. The life of a VM that has been started is the current one, also after an error.
func (a *agent) live(ctx context.Context, l *life) error {
	for _, step := range []struct {
		stage hostagent.Stage
		do    func(context.Context, *life) error
	}{
		{hostagent.StageProcess, a.startVM},
		{hostagent.StageLink, a.startLink},
		{hostagent.StageEngine, a.startEngine},
		{hostagent.StageShares, a.mountShares},
		{hostagent.StageForwards, a.startForwards},
	} {
		text := ""
		if l.restored && step.stage == hostagent.StageLink {
			text = "waking the machine from its saved memory" // it does not boot
		}
		a.state.stage(step.stage, text)
		err := a.within(ctx, step.stage, l, func(ctx context.Context) error { return step.do(ctx, l) })
		if err != nil {
			if l.vm == nil {
				err = errors.Join(err, l.end())
			}
			return &stageError{step.stage, err}
		}
	}
	l.up = true
	a.gate.touch()
	a.state.enter(hostagent.Running, "")
	l.startAgain(a.startContainers)
	return nil
}

// within does a stage's work under its deadline, which the VM's end cuts short.
func (a *agent) within(ctx context.Context, stage hostagent.Stage, l *life, do func(context.Context) error) error {
	limit := a.o.Deadlines[stage]
	patience := bootPatience{limit, limit}
	if stage == hostagent.StageLink && l != nil && !l.restored {
		patience.whole = limit * wholeBoot
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience.whole, &deadlineError{patience.whole})
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end(nil)
	if patience.whole > limit {
		watching.Go(func() { a.watchBoot(ctx, patience, end) })
	}
	if l != nil && l.vm != nil {
		watching.Go(func() {
			select {
			case <-l.vm.Done():
				end(vmEnded(l.vm))
			case <-ctx.Done():
			}
		})
	}
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		// Why it was broken off is the reason; what was under way tells where.
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
	}
	return err
}

func vmEnded(vm hostagent.VM) error {
	if err := vm.Err(); err != nil {
		return fmt.Errorf("the virtual machine ended: %w", err)
	}
	return errors.New("the virtual machine turned itself off")
}

// mtu is large because nothing here is a wire: both ends are in this process or one copy away, and what goes on from here is made anew.
const mtu = 16384

// startNetwork makes the machine's network.
func (a *agent) startNetwork(context.Context) error {
	mac, err := net.ParseMAC(a.o.MAC)
	if err != nil {
		return fmt.Errorf("read the card's address: %w", err)
	}
	n, err := network.New(network.Config{Subnet: a.o.Subnet, GuestMAC: mac, MTU: mtu, Resolver: a.resolver(), Logger: a.log})
	if err != nil {
		return err
	}
	a.net.Store(n)
	a.onClose("network", n.Close)
	a.state.set(func(s *hostagent.Status) { s.Guest, s.SleepAfter = n.Guest.String(), a.o.SleepAfter })
	return a.serveCard(n)
}

// startVM starts the shares, writes the seed and starts the VM. The VM of a life that goes on after it could not be saved runs already.
func (a *agent) startVM(ctx context.Context, l *life) error {
	if l.vm != nil {
		return a.startSharesAgain(ctx, l)
	}
	n := a.net.Load()
	l.mac = a.o.MAC
	if l.notes.MAC != "" {
		l.mac = l.notes.MAC
	}
	if !l.restored {
		l.template = a.wantsTemplate(ctx)
	}
	address, err := net.ParseMAC(l.mac)
	if err != nil {
		return fmt.Errorf("read the card's address: %w", err)
	}
	if err := n.SetGuestMAC(address); err != nil {
		return err
	}
	if l.template == nil { // otherwise they come after it
		a.startShares(ctx, l)
	}
	if err := a.o.WriteSeed(a.seedParts(n, l)); err != nil {
		return fmt.Errorf("write the seed: %w", err)
	}
	link := hostagent.Link{Network: a.o.Network, MAC: l.mac, Seed: a.o.Seed, Console: a.o.Console}
	for _, s := range l.shares {
		link.Shares = append(link.Shares, hostagent.ShareLink{Tag: s.share.Tag, Socket: s.socket})
	}
	if l.restored {
		link.State, link.Loaded = l.saved.File, a.o.Memory.Consume
	}
	vm, err := a.o.Start(ctx, link)
	if err != nil {
		return err
	}
	l.vm = vm
	a.current.Store(l)
	if l.template == nil {
		a.carryShares(l)
	}
	a.state.set(func(s *hostagent.Status) { s.VMPID = vm.PID() })
	return nil
}

// serveCard takes the VM's network card, again and again: a VM that resets itself keeps it, one that lost it comes back.
func (a *agent) serveCard(n *network.Network) error {
	l, err := listenLocal(a.o.Network)
	if err != nil {
		return err
	}
	a.onClose("network socket", l.Close)
	a.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.work.Go(func() {
				if err := n.Attach(conn); err != nil {
					a.log.Debug("the network card went away", "error", err)
				}
			})
		}
	})
	return nil
}

// seedParts is what the guest has to know of this side.
func (a *agent) seedParts(n *network.Network, l *life) SeedParts {
	parts := SeedParts{
		Time:         time.Now(),
		Network:      guestNetwork(n.Addresses),
		Proxy:        guestProxy(a.o.Env, n.Addresses),
		Certificates: hostCertificates(a.log),
		Sysctl:       guestSysctl(),
		Engine:       guestEngine(),
		LinkSecret:   a.newLinkSecret(),
	}
	for _, s := range l.shares {
		parts.Mounts = append(parts.Mounts, s.mount())
	}
	if l.template == nil { // otherwise they come after it
		for _, s := range a.own {
			parts.Shares = append(parts.Shares, s.share.Guest)
		}
	}
	return parts
}

// retryPause is between attempts at something that is about to be there.
const retryPause = 200 * time.Millisecond

// pause waits a moment, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startLink waits for the guest's agent, and keeps the link up from then on. A guest that was restored is told at once what has changed meanwhile.
func (a *agent) startLink(ctx context.Context, l *life) error {
	a.link.begin(l)
	if l.restored {
		if err := a.thaw(ctx, l); err != nil {
			return err
		}
	} else if err := a.link.connect(ctx, l); err != nil {
		return err
	}
	l.linked = true
	a.net.Load().Reopen()
	l.onEnd("link", a.link.end)
	if !a.serving {
		addr, err := a.forwardSSH()
		if err != nil {
			return err
		}
		a.state.set(func(s *hostagent.Status) { s.SSH = addr })
	}
	if l.template != nil {
		return nil // nobody is to leave a trace in it
	}
	a.gate.set(reachGuest, nil)
	if !l.restored {
		a.keepLink(l)
	}
	return nil
}

// keepLink keeps the link up, and the guest's clock right, as long as the life lasts.
func (a *agent) keepLink(l *life) {
	l.work.Go(func() { a.link.keep(l) })
	l.work.Go(func() { a.keepClock(l) })
}

// mountShares makes sure that what the seed asked for is mounted.
func (a *agent) mountShares(ctx context.Context, l *life) error {
	if l.restored || l.template != nil {
		a.keepLink(l) // only now: a login would keep a restored guest from answering who waits for its engine
	}
	a.gate.set(reachEngine, nil)
	if l.template != nil {
		if err := a.startSharesAgain(ctx, l); err != nil {
			return err
		}
		a.carryShares(l)
	}
	a.awaitShares(ctx, l)
	for _, f := range a.onLife {
		if err := f(ctx, l); err != nil {
			return err
		}
	}
	if len(l.shares) == 0 {
		return nil
	}
	mounted, err := a.link.readMounts(ctx)
	if err != nil {
		return err
	}
	for _, s := range l.shares {
		m := s.mount()
		var p *hostagent.Problem
		if !mounted[m.Target] {
			if err := a.link.call(ctx, proto.MethodMount, m, nil); err != nil {
				p = &hostagent.Problem{
					Code: "share-unavailable", Text: fmt.Sprintf("folder %q is not in the machine: %v", s.share.Host, err),
					Hint: "see `dev machine logs --console " + a.o.Machine + "`, then start the machine again",
				}
			}
		}
		a.state.problem("share "+s.share.Tag, p)
		if p == nil && len(s.dead) > 0 {
			dead := slices.Clone(s.dead)
			l.work.Go(func() { a.mendContainers(l, s, dead) })
		}
		l.beforeSave("put folder "+strconv.Quote(s.share.Host)+" aside", func(ctx context.Context) error { return a.unplugShare(ctx, l, s) })
	}
	return nil
}

// startForwards serves sockets and published ports on the host.
func (a *agent) startForwards(ctx context.Context, l *life) error {
	if !a.serving {
		if err := a.serveDocker(); err != nil {
			return err
		}
		a.serveTLS()
		a.serving = true
	}
	if !l.restored {
		s, err := a.link.get(ctx)
		if err != nil {
			return err
		}
		select {
		case <-s.prepared:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return a.startPorts(ctx, l)
}

// shareSocket is where a share is served, beside the network's socket.
func (a *agent) shareSocket(i int) string {
	return filepath.Join(filepath.Dir(a.o.Network), fmt.Sprintf("fs%d.sock", i))
}
