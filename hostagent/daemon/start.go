// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
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

// start brings the machine up, stage by stage.
func (a *agent) start(ctx context.Context) error {
	for _, step := range []struct {
		stage hostagent.Stage
		do    func(context.Context) error
	}{
		{hostagent.StageProcess, a.startVM},
		{hostagent.StageLink, a.startLink},
		{hostagent.StageEngine, a.startEngine},
		{hostagent.StageShares, a.mountShares},
		{hostagent.StageForwards, a.startForwards},
	} {
		a.state.stage(step.stage)
		if err := a.within(ctx, step.stage, step.do); err != nil {
			return &stageError{step.stage, err}
		}
	}
	a.state.enter(hostagent.Running, "")
	return nil
}

// within does a stage's work under its deadline, which the VM's end cuts short.
func (a *agent) within(ctx context.Context, stage hostagent.Stage, do func(context.Context) error) error {
	limit := a.o.Deadlines[stage]
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &deadlineError{limit})
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if a.vm != nil {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			select {
			case <-a.vm.Done():
				end(vmEnded(a.vm))
			case <-ctx.Done():
			}
		}()
		defer func() { end(nil); <-watched }()
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

// startVM makes the network and the shares, writes the seed and starts the VM.
func (a *agent) startVM(ctx context.Context) error {
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
	a.state.set(func(s *hostagent.Status) { s.Guest = n.Guest.String() })
	if err := a.serveCard(n); err != nil {
		return err
	}
	a.startShares(ctx)
	if err := a.o.WriteSeed(a.seedParts(n)); err != nil {
		return fmt.Errorf("write the seed: %w", err)
	}
	l := hostagent.Link{Network: a.o.Network, MAC: a.o.MAC, Seed: a.o.Seed, Console: a.o.Console}
	for _, s := range a.shares {
		l.Shares = append(l.Shares, hostagent.ShareLink{Tag: s.share.Tag, Socket: s.socket})
	}
	vm, err := a.o.Start(ctx, l)
	if err != nil {
		return err
	}
	a.vm = vm
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
func (a *agent) seedParts(n *network.Network) SeedParts {
	parts := SeedParts{
		Time:         time.Now(),
		Network:      guestNetwork(n.Addresses),
		Proxy:        guestProxy(a.o.Env, n.Addresses),
		Certificates: hostCertificates(a.log),
		Sysctl:       guestSysctl(),
		Engine:       guestEngine(),
		LinkSecret:   a.newLinkSecret(),
	}
	for _, s := range a.shares {
		parts.Mounts = append(parts.Mounts, s.mount())
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

// startLink waits for the guest's agent, and keeps the link up from then on.
func (a *agent) startLink(ctx context.Context) error {
	if err := a.link.connect(ctx); err != nil {
		return err
	}
	a.work.Go(a.link.keep)
	a.onClose("link", a.link.close)
	a.work.Go(a.keepClock)
	addr, err := a.forwardSSH()
	if err != nil {
		return err
	}
	a.state.set(func(s *hostagent.Status) { s.SSH = addr })
	return nil
}

// mountShares makes sure that what the seed asked for is mounted.
func (a *agent) mountShares(ctx context.Context) error {
	if len(a.shares) == 0 {
		return nil
	}
	mounted, err := a.link.readMounts(ctx)
	if err != nil {
		return err
	}
	for _, s := range a.shares {
		m := s.mount()
		if mounted[m.Target] {
			continue
		}
		if err := a.link.call(ctx, proto.MethodMount, m, nil); err != nil {
			a.state.problem("share "+s.share.Tag, &hostagent.Problem{
				Code: "share-unavailable", Text: fmt.Sprintf("folder %q is not in the machine: %v", s.share.Host, err),
				Hint: "see `dev machine logs --console " + a.o.Machine + "`, then start the machine again",
			})
		}
	}
	return nil
}

// startForwards serves sockets and published ports on the host.
func (a *agent) startForwards(ctx context.Context) error {
	if err := a.serveDocker(); err != nil {
		return err
	}
	a.serveTLS()
	s, err := a.link.get(ctx)
	if err != nil {
		return err
	}
	select {
	case <-s.prepared:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return a.startPorts(ctx)
}

// shareSocket is where a share is served, beside the network's socket.
func (a *agent) shareSocket(i int) string {
	return filepath.Join(filepath.Dir(a.o.Network), fmt.Sprintf("fs%d.sock", i))
}
