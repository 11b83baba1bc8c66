// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package serve is the body of a machine's host agent process: it puts a machine of the store, its driver and the host agent together.
//
// It is apart from package machine because of what it links: commands that only look after machines need no TCP/IP stack.
package serve

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/daemon"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	// orphanGrace is how long a VM whose agent died may take to power off before it is killed and started again.
	orphanGrace = 60 * time.Second
	// processDeadline leaves room for that.
	processDeadline = orphanGrace + 2*time.Minute
	// renewEvery is how often certificates are looked at while a machine runs.
	renewEvery = 12 * time.Hour
)

// Serve serves the machine until its VM is off or ctx is done, which stops it in order. env is the host's environment: proxy settings and the SSH
// agent's socket are taken from it.
func Serve(ctx context.Context, store *machine.Store, name string, env []string) error {
	m, err := store.Get(name)
	if err != nil {
		return err
	}
	if len(m.Problems) > 0 {
		return errors.Join(m.Problems...)
	}
	o, err := options(store, m, env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		renew(ctx, m, store.Logger)
	}()
	defer func() {
		cancel()
		<-renewed
	}()
	return daemon.Run(ctx, o)
}

// renew keeps the certificates of a machine that runs for long from expiring.
func renew(ctx context.Context, m *machine.Machine, log *slog.Logger) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if _, err := m.RenewCertificates(); err != nil {
			log.Error("renew certificates", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// options translates a machine into what the agent takes.
func options(store *machine.Store, m *machine.Machine, env []string) (daemon.Options, error) {
	keys, err := m.Keys()
	if err != nil {
		return daemon.Options{}, err
	}
	identity, err := m.Identity()
	if err != nil {
		return daemon.Options{}, err
	}
	ports, err := wishedPorts(m.Dir)
	if err != nil {
		return daemon.Options{}, err
	}
	sleepAfter, err := machine.ParseSleepAfter(m.Spec.SleepAfter)
	if err != nil {
		return daemon.Options{}, fmt.Errorf("read sleep_after: %w", err)
	}
	d, log := m.Dir, store.Logger
	return daemon.Options{
		Machine: m.Name, RunLock: d.RunLock(), Control: d.Control(), Docker: d.Docker(),
		Network: d.Network(), Console: d.Console(), Seed: d.Seed(), MAC: identity.MAC,
		Start: func(ctx context.Context, link hostagent.Link) (hostagent.VM, error) {
			return start(ctx, store.Drivers[m.Spec.Driver], m, link, log)
		},
		ReclaimMemory: m.Spec.ReclaimsMemory(runtime.GOOS), MemoryBytes: int64(m.Spec.MemoryMiB) << 20, CPUs: m.Spec.CPUs,
		Memory: newMemory(store, m, log), SleepAfter: sleepAfter, SleepContainers: m.Spec.SleepContainers,
		Key: keys.Login, HostKey: keys.Host.PublicKey(),
		WriteSeed: func(parts daemon.SeedParts) error { return writeSeed(m, keys, identity, parts) },
		Shares:    shares(m.Spec), TLS: d.TLS(), TCPPort: ports.TCP, SSHPort: ports.SSH, Env: env,
		Deadlines: map[hostagent.Stage]time.Duration{hostagent.StageProcess: processDeadline},
		Logger:    log,
	}, nil
}

// start starts the VM; the agent holds the run lock. A VM of an agent that died is ended first: its network went with that agent. It gets the
// chance to stop in order, because a power cut may cost containers what they have not written yet.
func start(ctx context.Context, driver machine.Driver, m *machine.Machine, link hostagent.Link, log *slog.Logger) (hostagent.VM, error) {
	if f, ok := driver.(machine.Finder); ok {
		vm, err := f.Find(ctx, m.Dir)
		if err != nil {
			return nil, fmt.Errorf("look for a VM without an agent: %w", err)
		}
		if vm != nil {
			log.Warn("ending a VM whose agent died", "pid", vm.PID())
			if err := machine.EndVM(ctx, vm, orphanGrace); err != nil {
				return nil, fmt.Errorf("end a VM whose agent died: %w", err)
			}
		}
	}
	if err := machine.GrowDisk(m.Dir.DataDisk(), m.Spec.DiskMiB); err != nil {
		return nil, err
	}
	if err := driver.Prepare(ctx, m.Dir, m.Spec); err != nil {
		return nil, err
	}
	return driver.Start(ctx, m.Dir, m.Spec, link)
}

// shares are the spec's shares as devices.
func shares(spec machine.Spec) []daemon.Share {
	var list []daemon.Share
	for i, s := range spec.Shares {
		list = append(list, daemon.Share{Tag: "share" + strconv.Itoa(i), Host: s.Host, Guest: s.Guest, ReadOnly: s.ReadOnly, Type: s.Type, Cache: s.Cache})
	}
	return list
}

// writeSeed writes the seed disk for the next boot.
func writeSeed(m *machine.Machine, keys machine.Keys, identity machine.Identity, parts daemon.SeedParts) error {
	seed, err := newSeed(m, keys, identity, parts)
	if err != nil {
		return err
	}
	disk, err := proto.EncodeSeed(seed)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(m.Dir.Seed(), disk, 0o600); err != nil {
		return fmt.Errorf("write the seed: %w", err)
	}
	return nil
}

// newSeed is all that the guest is told before it boots.
func newSeed(m *machine.Machine, keys machine.Keys, identity machine.Identity, parts daemon.SeedParts) (proto.Seed, error) {
	entropy := make([]byte, 64)
	if _, err := rand.Read(entropy); err != nil {
		return proto.Seed{}, fmt.Errorf("write the seed: %w", err)
	}
	engine, err := m.Spec.Engine.Config()
	if err != nil {
		return proto.Seed{}, err
	}
	environment, err := m.Spec.Engine.Environment()
	if err != nil {
		return proto.Seed{}, err
	}
	network := parts.Network
	return proto.Seed{
		Hostname: m.Hostname(), MachineID: identity.ID, HostKey: keys.HostPEM,
		AuthorizedKeys: []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(keys.Login.PublicKey())))},
		Time:           parts.Time, Entropy: entropy, Network: &network, Proxy: merged(parts.Proxy, environment), Certificates: parts.Certificates,
		DataDisk: true, Sysctl: parts.Sysctl, LinkSecret: parts.LinkSecret, Mounts: parts.Mounts, Shares: parts.Shares, Engine: mergedConfig(parts.Engine, engine),
	}, nil
}

// merged is base with over's entries on top.
func merged(base, over map[string]string) map[string]string {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, over)
	return all
}

func mergedConfig(base, over map[string]json.RawMessage) map[string]json.RawMessage {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	maps.Copy(all, over)
	return all
}

// wishedPorts reads the machine's ports, or chooses them when it has none. A port that is taken by the time it is wanted is the agent's to replace.
func wishedPorts(dir machine.Dir) (machine.Ports, error) {
	p, err := dir.ReadPorts()
	if err == nil {
		return p, nil
	}
	if p, err = choosePorts(); err != nil {
		return machine.Ports{}, err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return machine.Ports{}, err
	}
	if err := atomicfile.Write(dir.Ports(), append(data, '\n'), 0o600); err != nil {
		return machine.Ports{}, fmt.Errorf("write %q: %w", filepath.Base(dir.Ports()), err)
	}
	return p, nil
}

// choosePorts asks the system for two free ports.
func choosePorts() (machine.Ports, error) {
	var numbers [2]int
	for i := range numbers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return machine.Ports{}, fmt.Errorf("choose a port: %w", err)
		}
		defer l.Close()
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return machine.Ports{}, fmt.Errorf("choose a port: %q is no TCP address", l.Addr())
		}
		numbers[i] = addr.Port
	}
	return machine.Ports{SSH: numbers[0], TCP: numbers[1]}, nil
}
