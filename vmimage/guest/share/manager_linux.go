// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// Manager keeps a machine's shares. It is the service proto.FastShare of the fast link. Set the fields, then Serve.
type Manager struct {
	// MakeTarget makes the folder that a share is mounted at.
	MakeTarget func(path string) error
	// Replaced, which may be nil, is told when a share took the place of mounts of these devices (major:minor) that were dead.
	Replaced func(devices []string, target string)
	Log      *slog.Logger

	mu     sync.Mutex
	mounts map[string]*managed // by target
}

type managed struct {
	spec  proto.Mount
	mount *Mount
}

// Serve mounts a share, which argument describes (a proto.Mount as JSON), unless it is mounted, and uses the connection for it.
func (m *Manager) Serve(ctx context.Context, conn net.Conn, argument string) {
	share, err := m.mounted(argument)
	if replyErr := proto.FastReply(conn, err); err != nil || replyErr != nil {
		return
	}
	if err := share.Serve(ctx, conn); err != nil {
		m.Log.Warn("a share lost its connection", "error", err)
	}
}

// Settle waits until the host has all that programs have written to shares and closed: whoever hears of the programs' end finds their files. It is quick where
// there is nothing to wait for, and does not wait for long when a host does not answer.
func (m *Manager) Settle() { m.each((*Mount).Settle) }

// Hold does so, too, and has nothing go ahead of the host any more until it connects again.
func (m *Manager) Hold() { m.each((*Mount).Hold) }

func (m *Manager) each(do func(*Mount)) {
	m.mu.Lock()
	all := make([]*Mount, 0, len(m.mounts))
	for _, share := range m.mounts {
		all = append(all, share.mount)
	}
	m.mu.Unlock()
	for _, mount := range all {
		do(mount)
	}
}

// mounted is the share that is described, mounted.
func (m *Manager) mounted(argument string) (*Mount, error) {
	var spec proto.Mount
	if err := json.Unmarshal([]byte(argument), &spec); err != nil {
		return nil, fmt.Errorf("read what to mount: %w", err)
	}
	if err := spec.ValidateTarget(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.mounts[spec.Target]; have != nil && !have.mount.ended() {
		if have.spec == spec {
			return have.mount, nil
		}
		if err := have.mount.Unmount(); err != nil { // it became another one
			return nil, err
		}
	}
	dead, err := detachDead(spec.Target)
	if err != nil {
		return nil, err
	}
	if err := m.MakeTarget(spec.Target); err != nil {
		return nil, fmt.Errorf("mount %q: make folder %q: %w", spec.Source, spec.Target, err)
	}
	share, err := New(Options{Name: spec.Source, Target: spec.Target, ReadOnly: spec.ReadOnly, KeepsOwners: spec.Options == proto.MountOwners, Log: m.Log})
	if err != nil {
		return nil, err
	}
	if m.mounts == nil {
		m.mounts = map[string]*managed{}
	}
	m.mounts[spec.Target] = &managed{spec, share}
	if len(dead) > 0 && m.Replaced != nil {
		go m.Replaced(dead, spec.Target) // it asks the share, which has no connection yet
	}
	return share, nil
}

// detachDead takes away mounts whose server is gone: those of an agent that was killed, in whose place this one is. It returns their devices, as
// major:minor.
func detachDead(target string) (devices []string, err error) {
	for {
		var st unix.Statfs_t // never from a cache, as attributes may be
		if err := unix.Statfs(target, &st); !errors.Is(err, unix.ENOTCONN) {
			return devices, nil // whatever else is the matter, who mounts there hears of it
		}
		var cached unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, target, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, 0, &cached) == nil { // without asking the dead
			devices = append(devices, fmt.Sprintf("%d:%d", cached.Dev_major, cached.Dev_minor))
		}
		if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return devices, fmt.Errorf("take away the dead mount at %q: %w", target, err)
		}
	}
}
