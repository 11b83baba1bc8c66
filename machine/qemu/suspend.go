// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/saved"
)

var (
	_ hostagent.Suspender   = (*vm)(nil)
	_ hostagent.Snapshotter = (*vm)(nil)
)

const (
	// streamDeadline bounds QEMU's writing or reading of its stream: without memory in it, it takes some milliseconds; with it, seconds.
	streamDeadline = 5 * time.Minute
	// endDeadline is how long QEMU may take to end once it was told to.
	endDeadline = 20 * time.Second
)

// Suspend saves memory and devices and ends QEMU. Once it has written its stream QEMU has let go of the disks, all caches written.
func (v *vm) Suspend(ctx context.Context, file string, still func(ctx context.Context) error) error {
	v.monitor.standing.Lock()
	defer v.monitor.standing.Unlock()
	if err := v.save(ctx, file); err != nil {
		return err
	}
	err := still(ctx)
	if err == nil {
		err = v.quit(ctx)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file), v.proceed(ctx))
	}
	return nil
}

// Snapshot saves memory and devices, and the VM goes on.
func (v *vm) Snapshot(ctx context.Context, file string, paused func(ctx context.Context) error) error {
	v.monitor.standing.Lock()
	defer v.monitor.standing.Unlock()
	if err := v.save(ctx, file); err != nil {
		return err
	}
	err := paused(ctx)
	err = errors.Join(err, v.proceed(ctx))
	if err != nil {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// save stops the guest and writes the state file. After an error the guest runs on.
func (v *vm) save(ctx context.Context, file string) error {
	if err := v.monitor.call(ctx, "stop", nil, nil); err != nil {
		return err
	}
	err := v.write(ctx, file)
	if err != nil {
		err = errors.Join(err, v.proceed(ctx))
	}
	return err
}

// proceed lets the guest's processors run. It is done also where ctx has ended: a guest that stands still is of no use.
func (v *vm) proceed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), monitorDeadline)
	defer cancel()
	return v.monitor.call(ctx, "cont", nil, nil)
}

func (v *vm) write(ctx context.Context, file string) error {
	if err := v.monitor.migrationOptions(ctx, v.memory != nil); err != nil {
		return err
	}
	var memory saved.Memory
	var size int64
	if v.memory != nil {
		memory, size = v.memory, v.memory.size
	}
	return saved.Write(ctx, file, memory, size, func(w io.Writer) error { return v.sendStream(ctx, w) })
}

// sendStream has QEMU write its stream to w.
func (v *vm) sendStream(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, streamDeadline)
	defer cancel()
	path := v.dir.Migration()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("save the machine's devices: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("save the machine's devices: %w", err)
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	received := make(chan error, 1)
	go func() { received <- receive(ctx, l, w) }()
	done := v.migration.begin()
	err = v.monitor.call(ctx, "migrate", map[string]any{"uri": "unix:" + path}, nil)
	if err == nil {
		err = v.awaitMigration(ctx, done)
	}
	if err != nil {
		l.Close()
		v.cancelMigration(ctx)
		return errors.Join(err, <-received)
	}
	return <-received
}

// receive takes one connection and copies what comes.
func receive(ctx context.Context, l net.Listener, w io.Writer) error {
	conn, err := l.Accept()
	if err != nil {
		return fmt.Errorf("save the machine's devices: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.Copy(w, conn); err != nil {
		return fmt.Errorf("save the machine's devices: %w", err)
	}
	return nil
}

// cancelMigration takes back a migration that did not come to its end, and waits for that.
func (v *vm) cancelMigration(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), monitorDeadline)
	defer cancel()
	done := v.migration.begin()
	if v.monitor.call(ctx, "migrate_cancel", nil, nil) == nil {
		select {
		case <-done:
		case <-v.done:
		case <-time.After(time.Second): // there was none
		}
	}
}

// awaitMigration waits for the end of a migration, whose event may have been missed.
func (v *vm) awaitMigration(ctx context.Context, done <-chan string) error {
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for {
		var status string
		select {
		case status = <-done:
		case <-again.C:
			var err error
			if status, err = v.monitor.migrationStatus(ctx); err != nil {
				return err
			}
		case <-v.done:
			return v.startError()
		case <-ctx.Done():
			return fmt.Errorf("wait for QEMU's stream: %w", context.Cause(ctx))
		}
		switch status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return v.monitor.migrationError(ctx, status)
		}
	}
}

// quit ends QEMU and waits for it. An error says that QEMU goes on; once it was told and has not refused, there is no way back, whoever loses patience.
func (v *vm) quit(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	v.setQuitting(true)
	var refused *monitorError
	if err := v.monitor.call(context.WithoutCancel(ctx), "quit", nil, nil); errors.As(err, &refused) {
		v.setQuitting(false)
		return err
	} // otherwise it may have gone before it answered
	t := time.NewTimer(endDeadline)
	defer t.Stop()
	select {
	case <-v.done:
		return nil
	case <-t.C:
		return v.Kill(context.WithoutCancel(ctx)) // all is saved
	}
}

// setQuitting says whether an end of QEMU's is what is wanted of it.
func (v *vm) setQuitting(yes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.quitting = yes
}

// restore brings a VM that waits for its memory to life. load has put the guest's memory in place, or says why not.
func (v *vm) restore(ctx context.Context, link hostagent.Link, state *saved.File, load func() error) error {
	if err := v.monitor.migrationOptions(ctx, state.MemorySize() > 0); err != nil {
		return err
	}
	if err := load(); err != nil { // the devices look into the memory
		return err
	}
	if err := v.receiveStream(ctx, state); err != nil {
		return err
	}
	if link.Loaded != nil {
		if err := link.Loaded(ctx); err != nil {
			return err
		}
	}
	return nil
}

// receiveStream has QEMU read its stream.
func (v *vm) receiveStream(ctx context.Context, state *saved.File) error {
	ctx, cancel := context.WithTimeout(ctx, streamDeadline)
	defer cancel()
	path := v.dir.Migration()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("restore the machine's devices: %w", err)
	}
	done := v.migration.begin()
	if err := v.monitor.call(ctx, "migrate-incoming", map[string]any{"uri": "unix:" + path}, nil); err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("restore the machine's devices: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = errors.Join(state.WriteDevices(conn), conn.Close())
	return errors.Join(err, v.awaitMigration(ctx, done))
}

// migrationOptions say that a stream may come at any speed, and that shared memory is not in it: that is saved apart.
func (m *monitor) migrationOptions(ctx context.Context, apart bool) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	list := []capability{{"events", true}, {"x-ignore-shared", apart}}
	if err := m.call(ctx, "migrate-set-capabilities", map[string]any{"capabilities": list}, nil); err != nil {
		return err
	}
	return m.call(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40, "downtime-limit": 2000000}, nil)
}

// migrationInfo is the answer to query-migrate.
type migrationInfo struct {
	Status string `json:"status"`
	Error  string `json:"error-desc"`
}

func (m *monitor) migrationStatus(ctx context.Context) (string, error) {
	var info migrationInfo
	err := m.call(ctx, "query-migrate", nil, &info)
	return info.Status, err
}

func (m *monitor) migrationError(ctx context.Context, status string) error {
	var info migrationInfo
	if err := m.call(ctx, "query-migrate", nil, &info); err == nil && info.Error != "" {
		return fmt.Errorf("QEMU's stream %s: %s", status, info.Error)
	}
	return fmt.Errorf("QEMU's stream %s", status)
}

// migrationEvent is the data of MIGRATION.
func migrationEvent(data json.RawMessage) string {
	var e struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(data, &e) != nil {
		return ""
	}
	return e.Status
}
