// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Options say what machine to serve, and where. The paths are the machine folder's.
type Options struct {
	Machine string
	// RunLock is held for Run's whole life. Control is the agent's own socket, Docker the engine's, both named pipes on Windows.
	RunLock, Control, Docker string
	// Network, Console and Seed are passed on in the Link. Shares' sockets are made beside Network.
	Network, Console, Seed string
	// MAC is the address of the VM's network card.
	MAC string
	// Start starts the VM: a driver's method, bound to a machine's folder and spec.
	Start func(ctx context.Context, l hostagent.Link) (hostagent.VM, error)
	// Memory keeps saved memory states; nil: this machine has none, and is always booted.
	Memory Memory
	// Key logs in; HostKey is the only one the guest may answer with.
	Key     ssh.Signer
	HostKey ssh.PublicKey
	// WriteSeed writes the seed disk. It is called before each boot with what only the agent knows.
	WriteSeed func(SeedParts) error
	Shares    []Share
	// TLS is the folder with ca.pem, server.pem and server-key.pem for the engine's TCP socket; "": there is none.
	TLS string
	// TCPPort and SSHPort are the wished loopback ports; 0, or one that is taken: any free one.
	TCPPort, SSHPort int
	// Env is the host's environment: its proxy settings are handed to the guest, and SSH_AUTH_SOCK is forwarded.
	Env []string
	// Hosts are names of the user's own that the guest's DNS answers.
	Hosts map[string]netip.Addr
	// Subnet is the guest's network; zero: 192.168.127.0/24.
	Subnet netip.Prefix
	// Deadlines replace the defaults of single stages.
	Deadlines map[hostagent.Stage]time.Duration
	// SleepAfter is how long nobody may have used the machine for it to fall asleep; 0: it never does. SleepContainers: also with containers that run.
	SleepAfter      time.Duration
	SleepContainers bool
	// Containers is the file that names the containers that a stop has ended and the next start starts again; "": containers.json beside RunLock.
	Containers string
	// ReclaimMemory has memory that the guest does not need given back to the host. MemoryBytes is what the guest was given, CPUs its processors.
	ReclaimMemory bool
	MemoryBytes   int64
	CPUs          int
	// StopGrace is how long an orderly stop may take before the power button is pressed, where the request does not say it; 0: 30 s.
	StopGrace time.Duration
	Logger    *slog.Logger

	engineSocket string // in the guest
}

// Memory keeps what a VM has in its memory from one life of it to the next. A state fits exactly one content of the disk and is used at most once, whatever
// dies. Its methods are called by one goroutine at a time.
type Memory interface {
	// Take looks for a state that matches disk, image, settings and VMM. The zero Saved, with Why where a state was dropped: boot.
	Take(ctx context.Context) (Saved, error)
	// Consume makes the taken state one that can never be taken again. It is called by Link.Loaded, just before the guest runs.
	Consume(ctx context.Context) error
	// New is where a state shall be written, or an error where that would be in vain. still is called when the VM has written all that it will ever write to
	// its disk, and is still there: it binds the state to the disk's exact content.
	New(ctx context.Context) (file string, still func(ctx context.Context) error, err error)
	// Commit makes the file of New the one to take, once the VM has ended; not where the disk has changed since it was still. File and Why of s are ignored.
	Commit(ctx context.Context, s Saved) error
	// Drop removes the state, taken or not, and what New began; why is logged.
	Drop(ctx context.Context, why string) error
}

// Templater is a Memory that keeps states of machines without any data, for new machines to start from. A template is used any number of times: each time
// with its own copy of the disk that it was taken with. Take of a machine that has never run returns one, if there is one; Consume leaves it where it is.
type Templater interface {
	// Template says whether a template of a machine like this one is wanted, and where it shall be written. It is, on the first boot of a machine.
	Template(ctx context.Context) (file string, wanted bool)
	// Paused copies the disk; the guest stands still.
	Paused(ctx context.Context) error
	// CommitTemplate makes what was written and copied a template. Only the Notes of s count.
	CommitTemplate(ctx context.Context, s Saved) error
}

// Saved is a memory state.
type Saved struct {
	// File is for Link.State; "": there is none.
	File string
	// Why says in one line why a state that was there cannot be used; "": there was none, or it can.
	Why string
	// Suspended: containers run in it, and the user calls the machine suspended; otherwise it is a stopped machine's, quiet and without containers.
	Suspended bool
	// Template: it is another machine's, from before it had any data, and the guest is to be given this machine's identity.
	Template bool
	// Notes are the agent's own, kept with the state and as secret as it: what it has to know of a guest that it did not boot.
	Notes json.RawMessage
}

// Share is a host folder for the guest.
type Share struct {
	// Tag names the device, at most 36 bytes.
	Tag string
	// Host is the folder, Guest where the guest mounts it; "": hostagent.GuestPath of Host.
	Host, Guest string
	ReadOnly    bool
	// Type is one of hostagent's; "": hostagent.ShareFUSE.
	Type string
	// Cache is one of hostagent's, for virtiofs; "": hostagent.CacheAuto.
	Cache string
}

// SeedParts are the agent's part of the seed; the rest (keys, host name, entropy) is the caller's. Engine and Sysctl are to be merged with the caller's
// own, which win.
type SeedParts struct {
	Time         time.Time
	Network      proto.Network
	Mounts       []proto.Mount
	Shares       []string // where the agent mounts shares of its own
	Proxy        map[string]string
	Certificates string
	Sysctl       map[string]string
	Engine       map[string]json.RawMessage
	LinkSecret   []byte
}

// defaultDeadlines are for a slow machine under software emulation; what hangs is told by the stage anyhow.
func defaultDeadlines() map[hostagent.Stage]time.Duration {
	return map[hostagent.Stage]time.Duration{
		hostagent.StageProcess:  60 * time.Second,
		hostagent.StageLink:     3 * time.Minute,
		hostagent.StageEngine:   5 * time.Minute,
		hostagent.StageShares:   60 * time.Second,
		hostagent.StageForwards: 60 * time.Second,
	}
}

// withDefaults completes o, or says what is missing.
func (o Options) withDefaults() (Options, error) {
	for name, missing := range map[string]bool{
		"Machine": o.Machine == "", "RunLock": o.RunLock == "", "Control": o.Control == "", "Docker": o.Docker == "", "Network": o.Network == "",
		"Start": o.Start == nil, "Key": o.Key == nil, "HostKey": o.HostKey == nil, "WriteSeed": o.WriteSeed == nil, "Logger": o.Logger == nil,
	} {
		if missing {
			return o, fmt.Errorf("start the host agent: option %s is missing", name)
		}
	}
	if !o.Subnet.IsValid() {
		o.Subnet = netip.MustParsePrefix("192.168.127.0/24")
	}
	if !o.Subnet.Addr().Is4() || o.Subnet.Bits() > 28 {
		return o, errors.New("start the host agent: the subnet must be IPv4 with at least 16 addresses")
	}
	if o.engineSocket == "" {
		o.engineSocket = guestDocker
	}
	if o.StopGrace == 0 {
		o.StopGrace = 30 * time.Second
	}
	if o.Containers == "" {
		o.Containers = filepath.Join(filepath.Dir(o.RunLock), "containers.json")
	}
	deadlines := defaultDeadlines()
	maps.Copy(deadlines, o.Deadlines)
	o.Deadlines = deadlines
	return o, nil
}
