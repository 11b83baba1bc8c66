// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/replay"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// maxWrite is the most that the kernel writes or reads at once, in bytes.
	maxWrite = 256 << 10
	// readAhead is how far the kernel reads ahead in a file that is read in order, in bytes.
	readAhead = 1 << 20
	// background bounds the kernel's requests that no program waits for.
	background = 64
)

// Options of a mount.
type Options struct {
	// Name is the share's, shown in /proc/mounts.
	Name string
	// Target is where it is mounted: an empty folder that is there.
	Target   string
	ReadOnly bool
	// KeepsOwners says that the host keeps owners and modes as they are set here, so that the kernel is to enforce them.
	KeepsOwners bool
	Log         *slog.Logger
}

// mount is one share.
type mount struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented

	o      Options
	client *client
	table  *table
	server *fuse.Server
	log    *slog.Logger

	dirtyMu sync.Mutex
	dirty   []*node
	// unsettled are files whose close, or removal, did not wait for the host, which does not have everything yet.
	unsettled map[*node]struct{}
	held      atomic.Int64 // bytes of writes that the host has not carried out
	stalled   atomic.Bool  // the host took too long to carry out what was ahead of it, and is still at it
	notes     notes
	missed    missed
	// starting: there is no host yet to ask, and no program that does.
	starting atomic.Bool
	// player replays the host's file events; nil before the mount is complete.
	player atomic.Pointer[replay.Player]
}

// Mount is a mounted share.
type Mount struct {
	m      *mount
	cancel context.CancelFunc
	work   sync.WaitGroup
	done   chan struct{} // closed when the kernel uses it no more
}

// New mounts a share that has no connection yet: programs that use it wait for one. Unmount ends it.
func New(o Options) (*Mount, error) {
	m := &mount{RawFileSystem: fuse.NewDefaultRawFileSystem(), o: o, client: newClient(), log: o.Log}
	m.table = newTable(wire.Attr{Ident: 1, Mode: wire.TypeFolder | 0o755, Nlink: 2})
	m.notes.wake, m.missed.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	m.client.pushed, m.client.resumed = m.pushed, m.resumed
	options := &fuse.MountOptions{
		AllowOther: true, Name: "dev", FsName: o.Name, MaxWrite: maxWrite, MaxReadAhead: readAhead, MaxBackground: background, DirectMountStrict: true,
		DirectMountFlags: unix.MS_MGC_VAL, EnableSymlinkCaching: true, ExplicitDataCacheControl: true, DisableSplice: true,
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO,
		DisabledCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_WRITEBACK_CACHE,
		Logger:               slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	if o.KeepsOwners {
		options.Options = append(options.Options, "default_permissions")
	}
	server, err := fuse.NewServer(m, o.Target, options)
	if err != nil {
		return nil, fmt.Errorf("mount share %q at %q: %w", o.Name, o.Target, err)
	}
	m.server = server
	raiseReadAhead(o.Target)
	ctx, cancel := context.WithCancel(context.Background())
	out := &Mount{m: m, cancel: cancel, done: make(chan struct{})}
	m.starting.Store(true)
	out.work.Go(func() {
		defer close(out.done)
		server.Serve()
		m.settleAhead()
		cancel()
	})
	// From then on the kernel does not ask whether files are ready. A question of this process itself, which the Go runtime puts for each file that it opens,
	// could keep the threads from running that are to answer it.
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount share %q at %q: %w", o.Name, o.Target, err), out.Unmount())
	}
	m.starting.Store(false)
	out.work.Go(func() { m.client.watch(ctx) })
	out.work.Go(func() { m.notify(ctx) })
	m.replayEvents(ctx, &out.work)
	if o.ReadOnly {
		if err := unix.Mount("", o.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return nil, errors.Join(fmt.Errorf("mount share %q read-only: %w", o.Name, err), out.Unmount())
		}
	}
	return out, nil
}

// raiseReadAhead lets the kernel read further ahead than it does by itself. A kernel that refuses is merely slower.
func raiseReadAhead(target string) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, target, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil { // without asking the host, who is not there yet
		return
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	_ = os.WriteFile(name, []byte(strconv.Itoa(readAhead>>10)), 0)
}

// Serve uses a connection to the host until it ends or ctx does, and closes it. A newer one takes its place.
func (m *Mount) Serve(ctx context.Context, conn net.Conn) error { return m.m.client.serve(ctx, conn) }

// ended says that it is mounted no more.
func (m *Mount) ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// Settle waits until the host has all that programs have written and closed, but not for long when it does not answer.
func (m *Mount) Settle() { m.m.settleAhead() }

// Hold has the host have all that programs have written and closed, and them wait for it until there is a new connection: the machine is about to be saved.
func (m *Mount) Hold() {
	m.m.client.hold()
	m.m.settleAhead()
}

// Unmount ends the mount. Requests under way fail, and programs that still use it hear so.
func (m *Mount) Unmount() error {
	// Lazily: it goes from sight at once, and the server ends with the last user.
	err := unix.Unmount(m.m.o.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	m.m.settleAhead()
	m.cancel()
	if err != nil {
		return fmt.Errorf("unmount %q: %w", m.m.o.Target, err)
	}
	return nil
}

func pathParts(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(0, i)], path[i+1:]
}
