// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/internal/portholder"
)

// forwards serves containers' published ports on the host. It is safe for concurrent use.
type forwards struct {
	a *agent

	mu         sync.Mutex
	containers map[string]containerPorts
	there      map[place]forward // served, or tried
	serving    map[place]func()  // ends one, and waits for its listener
	closed     bool
	lent       []netip.Addr    // the host's addresses that the guest has
	lending    <-chan struct{} // closed when the last change of them is through
}

// startPorts serves the ports of what runs now, and follows the engine from then on, as long as the life lasts.
func (a *agent) startPorts(ctx context.Context, l *life) error {
	f := a.forwards.Load()
	known := f != nil
	if !known {
		f = &forwards{a: a, containers: map[string]containerPorts{}, there: map[place]forward{}, serving: map[place]func(){}}
		a.forwards.Store(f)
		a.onClose("published ports", f.close)
	}
	first := make(chan struct{})
	l.work.Go(func() { f.follow(l.ctx, sync.OnceFunc(func() { close(first) })) })
	if known && l.restored {
		return nil // they are served as they were before it slept, and nothing has changed meanwhile
	}
	select {
	case <-first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("list the containers that run: %w", context.Cause(ctx))
	}
}

// running is how many containers run, as far as the engine has told.
func (f *forwards) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.containers)
}

// followPause is between attempts to follow an engine that does not answer.
const followPause = time.Second

// follow keeps the ports as the engine has them, until ctx ends. synced is called once they are.
func (f *forwards) follow(ctx context.Context, synced func()) {
	for {
		err := watchPorts(ctx, f.a.engine, func(all map[string]containerPorts) {
			f.a.state.problem("engine", nil)
			f.update(func() { f.containers = all })
			synced()
		}, func(id string, p *containerPorts) {
			f.update(func() {
				delete(f.containers, id)
				if p != nil {
					f.containers[id] = *p
				}
			})
		}, f.a.trimmer.Freed)
		if ctx.Err() != nil {
			return
		}
		f.a.state.problem("engine", &hostagent.Problem{Code: "engine-silent", Text: fmt.Sprintf("the engine does not tell what it does: %v", err), Hint: "see `dev machine logs " + f.a.o.Machine + "`"})
		if pause(ctx, followPause) != nil {
			return
		}
	}
}

// update changes what is known of containers, and then what is served.
func (f *forwards) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.a.gate.touch()
	change()
	if !f.closed {
		f.apply()
	}
}

// retry tries again what could not be served.
func (f *forwards) retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for p, fw := range f.there {
		if f.serving[p] == nil {
			f.begin(fw)
		}
	}
}

// apply makes what is served what is wanted; f.mu is held.
func (f *forwards) apply() {
	end, begin := diffForwards(f.there, wantedForwards(f.containers, f.a.net.Load().Addresses))
	for _, p := range end {
		f.end(p)
	}
	for _, fw := range begin {
		f.begin(fw)
	}
	f.borrow(borrowed(f.there))
}

// borrow gives the guest the addresses that its listeners need, without waiting: a connection that comes earlier is tried again by the network. f.mu is held.
func (f *forwards) borrow(want []netip.Addr) {
	isIn := func(list []netip.Addr) func(netip.Addr) bool {
		return func(a netip.Addr) bool { return slices.Contains(list, a) }
	}
	add, remove := slices.DeleteFunc(slices.Clone(want), isIn(f.lent)), slices.DeleteFunc(slices.Clone(f.lent), isIn(want))
	f.lent = want
	if len(add)+len(remove) == 0 {
		return
	}
	before, after := f.lending, make(chan struct{})
	f.lending = after
	f.a.work.Go(func() {
		defer close(after)
		if before != nil {
			<-before // in the order of the changes
		}
		f.a.runInGuest(addressScript(add, remove))
	})
}

// again gives a guest that has started anew what it had.
func (f *forwards) again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lent = nil
	f.borrow(borrowed(f.there))
}

// runInGuest runs a script, and logs what goes wrong.
func (a *agent) runInGuest(script string) {
	ctx, cancel := context.WithTimeout(a.ctx, prepareWait)
	defer cancel()
	s, err := a.link.get(ctx)
	if err == nil {
		var out string
		if out, err = runScript(ctx, s.ssh, script); err == nil {
			return
		}
		err = fmt.Errorf("%w: %s", err, out)
	}
	if a.ctx.Err() == nil {
		a.log.Warn("the guest could not be given an address of the host", "error", err)
	}
}

func (f *forwards) end(p place) {
	if stop := f.serving[p]; stop != nil {
		stop()
	}
	old := f.there[p]
	delete(f.serving, p)
	delete(f.there, p)
	f.a.state.problem(subject(p), nil)
	f.a.state.port(asPort(old), true)
}

func (f *forwards) begin(fw forward) {
	f.there[fw.place] = fw
	stop, err := f.serve(fw)
	port := asPort(fw)
	if err != nil {
		problem := portProblem(fw, err)
		if problem == nil { // the host has no such network
			return
		}
		port.Problem = problem.Text
		f.a.state.problem(subject(fw.place), problem)
	} else {
		f.serving[fw.place] = stop
		f.a.state.problem(subject(fw.place), nil)
	}
	f.a.state.port(port, false)
}

func (f *forwards) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, p := range slices.Collect(maps.Keys(f.serving)) {
		f.end(p)
	}
	return nil
}

func subject(p place) string { return "port " + p.Protocol + " " + p.Host.String() }

func asPort(f forward) hostagent.Port {
	return hostagent.Port{Protocol: f.Protocol, Host: f.Host.String(), Guest: f.Guest.String(), Container: f.Container}
}

// Why no way leads from a place on the host into the guest.
var (
	errNoDatagrams = errors.New("only TCP reaches this address of the machine")
	errNoSCTP      = errors.New("SCTP is not carried into machines")
)

// carried says whether a way leads into the guest.
func carried(fw forward) error {
	switch {
	case fw.Protocol == "sctp":
		return errNoSCTP
	case fw.Protocol == "udp" && fw.Inside: // SSH carries streams
		return errNoDatagrams
	}
	return nil
}

// serve listens on the host and carries what comes.
func (f *forwards) serve(fw forward) (stop func(), err error) {
	if err := carried(fw); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(f.a.ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	var closeListener func() error
	var done sync.WaitGroup
	if fw.Protocol == "udp" {
		conn, err := listenPacket(fw.Host)
		if err != nil {
			return nil, err
		}
		closeListener = conn.Close
		done.Go(func() { f.a.carryPackets(ctx, conn, fw) })
	} else {
		l, err := listenPort(fw.Host)
		if err != nil {
			return nil, err
		}
		closeListener = l.Close
		done.Go(func() { f.a.carryStreams(ctx, l, fw) })
	}
	return func() {
		cancel()
		_ = closeListener() // it is open
		done.Wait()
	}, nil
}

// carryStreams joins each connection with one in the guest. Connections end with the container, not with the listener.
func (a *agent) carryStreams(ctx context.Context, l net.Listener, fw forward) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && pause(ctx, retryPause) == nil {
				continue
			}
			return
		}
		a.work.Go(func() {
			a.joinStream(conn, reachEngine, func(ctx context.Context, _ *visit) (net.Conn, error) { return a.dialGuest(ctx, fw) })
		})
	}
}

func (a *agent) dialGuest(ctx context.Context, fw forward) (net.Conn, error) {
	switch {
	case fw.Inside:
		return a.link.dial(ctx, "tcp", fw.Guest.String())
	case a.slowLoopback.Load() && fw.Host.Addr().IsLoopback():
		return a.link.dial(ctx, "tcp", fw.Host.String())
	}
	return a.net.Load().Dial(ctx, fw.Guest)
}

// listenPort listens for streams at an address, and at nothing else: the family is the address's.
func listenPort(at netip.AddrPort) (net.Listener, error) {
	family := "tcp4"
	if at.Addr().Is6() {
		family = "tcp6"
	}
	l, err := net.Listen(family, at.String())
	if err != nil && errors.Is(err, fs.ErrPermission) && runtime.GOOS == "darwin" && at.Addr().IsLoopback() {
		// macOS gives low ports to everybody, but only at all addresses at once.
		all, allErr := net.Listen(family, netip.AddrPortFrom(unspecified(at.Addr()), at.Port()).String())
		if allErr == nil {
			return loopbackOnly{all}, nil
		}
	}
	return l, err
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// loopbackOnly refuses connections from elsewhere.
type loopbackOnly struct{ net.Listener }

func (l loopbackOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, ok := c.RemoteAddr().(*net.TCPAddr); ok && from.IP.IsLoopback() {
			return c, nil
		}
		_ = c.Close()
	}
}

func listenPacket(at netip.AddrPort) (*net.UDPConn, error) {
	family := "udp4"
	if at.Addr().Is6() {
		family = "udp6"
	}
	return net.ListenUDP(family, net.UDPAddrFromAddrPort(at))
}

// portProblem says why a port is not served, who has it, and what to do; nil where the host has no network of that family, which is no loss.
func portProblem(fw forward, err error) *hostagent.Problem {
	at := fmt.Sprintf("port %s/%s of container %q", fw.Host, fw.Protocol, fw.Container)
	switch {
	case errors.Is(err, errNoDatagrams):
		return &hostagent.Problem{Code: "port-unsupported", Text: fmt.Sprintf("%s is not served: %v", at, err), Hint: "publish the port at 127.0.0.1, or at no address"}
	case errors.Is(err, errNoSCTP):
		return &hostagent.Problem{Code: "port-unsupported", Text: fmt.Sprintf("%s is not served: %v", at, err), Hint: "publish a TCP or UDP port, or use the port from other containers"}
	case isNoFamily(err) && fw.Host.Addr().IsUnspecified():
		return nil
	case isTaken(err):
		p := &hostagent.Problem{Code: "port-taken", Text: at + " is not served: another program holds it", Hint: "stop that program, or publish another port of the host"}
		if holder, ok := portholder.Find(fw.Protocol, fw.Host.Addr(), fw.Host.Port()); ok {
			p.Text = fmt.Sprintf("%s is not served: %s holds it", at, holder)
		}
		return p
	case errors.Is(err, fs.ErrPermission):
		return &hostagent.Problem{Code: "port-forbidden", Text: at + " is not served: this user may not open it", Hint: lowPortHint(fw.Host.Port())}
	case isForeign(err):
		return &hostagent.Problem{Code: "port-address", Text: at + " is not served: this host does not have the address", Hint: "publish the port at an address of this host, or at none"}
	}
	return &hostagent.Problem{Code: "port-failed", Text: fmt.Sprintf("%s is not served: %v", at, err), Hint: "publish another port of the host"}
}

func lowPortHint(port uint16) string {
	switch {
	case runtime.GOOS == "linux" && port < 1024:
		return fmt.Sprintf("allow low ports to everybody (sudo sysctl net.ipv4.ip_unprivileged_port_start=%d), or publish a port from 1024 on", port)
	case runtime.GOOS == "windows":
		return "Windows reserves ranges of ports (netsh interface ipv4 show excludedportrange tcp shows them): publish one outside of them"
	}
	return "publish a port from 1024 on"
}
