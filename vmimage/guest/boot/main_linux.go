// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Where the agent finds what the seed says of it; only root can read it.
const (
	HostKeyFile        = "/run/dev/host_key"
	AuthorizedKeysFile = "/run/dev/authorized_keys"
	ProxyFile          = "/run/dev/proxy.env"
	LinkSecretFile     = "/run/dev/link_secret"
)

// Signals to PID 1, busybox's and systemd's alike.
const (
	SignalPowerOff = unix.SIGUSR2
	SignalReboot   = unix.SIGTERM
)

const (
	notifyContainerd = "/run/dev/notify-containerd.sock"
	notifyDockerd    = "/run/dev/notify-dockerd.sock"
)

// Main is PID 1 in the root file system. It returns only on failure.
func Main() error {
	m := &machine{record: &record{console: consoleWriter()}, table: newTable(), stops: map[string]func(){}}
	m.record.line("root file system")
	orders := make(chan os.Signal, 4)
	signal.Notify(orders, SignalPowerOff, SignalReboot, unix.SIGUSR1, unix.SIGINT, unix.SIGPWR)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := mountSystem(); err != nil {
		m.record.problem("%v", err)
	}
	m.record.persist()
	saveMemory()
	m.record.stage("mounts")
	go watchPowerButton(orders)
	go func() {
		defer m.logPanic()
		m.bring(ctx)
	}()
	order := <-orders
	m.shutdown(cancel, order)
	return errors.New("the machine did not power off")
}

// machine is the state of PID 1.
type machine struct {
	record   *record
	table    *table
	index    *Index
	seed     *proto.Seed
	services sync.WaitGroup
	// stops end the services, by name, and wait for it.
	mu    sync.Mutex
	stops map[string]func()
}

// logPanic keeps a bug in the boot from taking PID 1, and with it the kernel, down.
func (m *machine) logPanic() {
	if p := recover(); p != nil {
		m.record.problem("the guest program failed: %v", p)
	}
}

// bring makes the machine ready. Three things wait for devices or programs and run side by side: the network, the data disk, and modules.
func (m *machine) bring(ctx context.Context) {
	var err error
	if m.index, err = loadIndex(); err != nil {
		m.record.problem("%v", err)
		m.index = &Index{}
	}
	_ = m.index.load("virtio_console") // no such device: no loss
	card, fs := m.load("virtio_net", "hv_netvsc", "af_packet"), m.load("ext4")
	disks := m.awaitDisks()
	if m.seed.Maintenance != nil {
		<-fs
		m.maintain(ctx)
		return
	}
	m.identity()
	m.record.stage("identity")
	var wg sync.WaitGroup
	linked := make(chan struct{})
	wg.Go(func() { defer m.logPanic(); <-card; m.network(ctx, linked) })
	wg.Go(func() { defer m.logPanic(); <-fs; m.data(ctx, disks, linked) })
	wg.Go(func() { defer m.logPanic(); m.prepare() })
	wg.Wait()
	m.late(ctx)
	m.record.keepLog("/var/log/dev/boot.log")
	m.index = nil // modprobe reads its own
	debug.FreeOSMemory()
}

// load loads modules beside what else goes on; the channel is closed when that is over. What is missing, its user will name.
func (m *machine) load(names ...string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer m.logPanic()
		_ = m.index.load(names...)
	}()
	return done
}

// Deadlines for disks that appear late, as those on SCSI buses do.
const (
	seedWait = 5 * time.Second
	dataWait = 30 * time.Second
)

// awaitDisks lists the disks once the seed is among them, and the data disk where the seed says that there is one.
func (m *machine) awaitDisks() []disk {
	events, err := listenUevents()
	if err != nil {
		m.record.problem("%v", err)
		return listDisks()
	}
	defer unix.Close(events)
	began := time.Now()
	for ; ; awaitUevent(events) {
		disks := listDisks()
		if m.seed == nil {
			if m.seed, err = readSeed(disks); err != nil {
				m.record.problem("%v", err)
				m.seed = &proto.Seed{}
			}
		}
		if m.seed == nil && time.Since(began) < seedWait {
			continue
		}
		if m.seed == nil {
			m.record.warn("there is no seed disk: nobody can log in")
			m.seed = &proto.Seed{}
		}
		if _, action, _ := chooseData(disks); action != dataNone || !m.seed.DataDisk || time.Since(began) > dataWait {
			return disks
		}
	}
}

// identity gives the machine its name, clock, keys and trust.
func (m *machine) identity() {
	s := m.seed
	if now := time.Now(); s.Time.After(now) {
		tv := unix.NsecToTimeval(s.Time.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			m.record.warn("set the clock: %v", err)
		}
	}
	if len(s.Entropy) > 0 {
		_ = os.WriteFile("/dev/urandom", s.Entropy, 0) // more is better, none is no harm
	}
	if s.Hostname == "" {
		s.Hostname = "dev"
	}
	if s.MachineID == "" {
		b := make([]byte, 16)
		_, _ = rand.Read(b) // never fails
		s.MachineID = hex.EncodeToString(b)
	}
	err := errors.Join(os.WriteFile("/run/resolv.conf", nil, 0o644), writeIdentity(s), trust(s.Certificates))
	if err != nil {
		m.record.problem("give the machine its identity: %v", err)
	}
}

// network brings the link up and starts the agent; linked is closed when the first is done or has failed.
func (m *machine) network(ctx context.Context, linked chan<- struct{}) {
	_ = m.index.load(vsockModules()...) // without them the agent can still be reached over the network
	m.link(ctx, linked)
	m.start(ctx, service{name: "agent", args: []string{"/usr/sbin/dev-guest", "agent"}, log: "", grace: 5 * time.Second})
}

func (m *machine) link(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	renew, err := network(ctx, m.seed)
	if err != nil {
		m.record.problem("%v", err)
	} else {
		m.record.stage("network")
	}
	if renew != nil {
		go renew(ctx)
	}
}

// engineEnv makes the engine's programs give memory back: their heaps grow by half, not to the double, before garbage is collected.
var engineEnv = []string{"GOGC=50"}

// data mounts the data disk and starts the engine on it.
func (m *machine) data(ctx context.Context, disks []disk, linked <-chan struct{}) {
	err := mountData(ctx, disks, m.seed.DataDisk, m.table.command, m.record)
	if err != nil {
		m.record.problem("%v", err)
		m.record.line("the engine is not started: its data is not there")
		return
	}
	m.record.stage("data disk")
	settings, err := daemonJSON(m.seed.Engine, m.seed.Proxy)
	if err == nil {
		err = errors.Join(os.WriteFile(daemonConfig, settings, 0o600), os.WriteFile(containerdConfig, []byte(containerdTOML()), 0o600))
	}
	if err != nil {
		m.record.problem("%v", err)
		return
	}
	m.start(ctx, service{name: "containerd", args: []string{"containerd", "--config", containerdConfig}, env: engineEnv, log: "/var/log/dev/containerd.log", notify: notifyContainerd, grace: 10 * time.Second})
	<-linked // containers that start with the engine get the name servers of the link
	m.shares(ctx)
	m.start(ctx, service{name: "dockerd", args: []string{"dockerd", "--config-file", daemonConfig, "--pidfile", "/run/docker.pid"}, env: engineEnv, log: "/var/log/dev/dockerd.log", notify: notifyDockerd, grace: engineGrace})
}

// shares has the host's folders in place before containers start with the engine: one that found an empty folder would go on with that.
func (m *machine) shares(ctx context.Context) {
	for _, share := range m.seed.Mounts {
		_ = m.index.load(share.Type) // the mount says it better
		if err := MountShare(share); err != nil {
			m.record.problem("%v", err)
		}
	}
	if missing := awaitMounts(ctx, m.seed.Shares, sharesWait); len(missing) > 0 {
		m.record.warn("the engine starts without the host's folders %q, which did not come within %v", missing, sharesWait)
	}
}

// prepare loads what the engine will ask for, so that it need not wait, and sets the kernel up.
func (m *machine) prepare() {
	_ = m.index.load("evdev", "button", "virtio_rng", "virtio_balloon", "virtio_console", "hv_utils", "overlay", "bridge", "br_netfilter", "veth", "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_fib_inet",
		"nft_compat", "nft_reject_inet", "nft_limit", "nft_hash", "nf_conntrack_netlink", "tcp_diag", "xt_conntrack", "xt_addrtype", "xt_MASQUERADE", "xfrm_user", "tun", "fuse") // what is missing, its user will name
	if err := applySysctls(sysctls); err != nil {
		m.record.line("kernel settings: %v", err)
	}
	if err := applySysctls(m.seed.Sysctl); err != nil {
		m.record.warn("kernel settings: %v", err)
	}
	m.record.stage("modules")
}

// late does what nothing waits for.
func (m *machine) late(ctx context.Context) {
	if m.seed.ZramMiB > 0 {
		_ = m.index.load("zram") // the next step says it better
	}
	if err := swap(ctx, m.seed, m.table.command); err != nil {
		m.record.warn("%v", err)
	}
	_ = m.index.load("binfmt_misc", "hv_balloon", "ptp_kvm") // no such device: no loss
	if err := registerEmulators(m.seed.Emulators); err != nil {
		m.record.warn("%v", err)
	}
	m.record.stage("machine")
}

// start keeps a service running until the machine goes down.
func (m *machine) start(ctx context.Context, s service) {
	if s.notify != "" {
		if err := awaitNotify(s.notify, func() { m.record.stage(s.name + " ready") }); err != nil {
			m.record.line("%v", err)
			s.notify = ""
		}
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	m.mu.Lock()
	m.stops[s.name] = func() { stop(); <-done }
	m.mu.Unlock()
	m.record.stage(s.name + " started")
	m.services.Go(func() {
		defer close(done)
		m.table.run(ctx, s, m.record)
	})
}

// awaitNotify listens where a service says READY=1 and calls ready each time it does.
func awaitNotify(socket string, ready func()) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen at %q: %w", socket, err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains("\n"+string(buf[:n])+"\n", "\nREADY=1\n") {
				ready()
			}
		}
	}()
	return nil
}
