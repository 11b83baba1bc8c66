// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine/sparse"
)

var _ hostagent.DiskCopier = (*vm)(nil)

const (
	// dataDrive is the data disk's name in the command line.
	dataDrive = "data"
	// copyName names the job that copies a disk, and the node that it writes to.
	copyName = "copy-disk"
	// jobPause is how often a job is looked at.
	jobPause = 50 * time.Millisecond
	// pauseLimit bounds what is done while the guest is paused.
	pauseLimit = 60 * time.Second
)

// CopyDisk copies the data disk as it is at one moment. Where the file system lets files share their blocks, the guest is paused for an instant; elsewhere
// QEMU copies the disk while the guest runs, then what changed meanwhile, and the guest is paused for the last of it.
func (v *vm) CopyDisk(ctx context.Context, to string, settle func(context.Context) error) error {
	if err := v.monitor.copyDisk(ctx, to, settle); err != nil {
		return v.why(ctx, err)
	}
	return nil
}

func (m *monitor) copyDisk(ctx context.Context, to string, settle func(context.Context) error) (err error) {
	file, err := m.file(ctx, dataDrive)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("copy the disk to %q: %w", to, errors.Join(os.ErrExist, err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(to) // the first error matters
		}
	}()
	switch err := sparse.Clone(to, file); {
	case errors.Is(err, errors.ErrUnsupported):
		return m.mirror(ctx, file, to, settle)
	case err != nil:
		return err
	}
	if err := errors.Join(os.Remove(to), settle(ctx)); err != nil {
		return err
	}
	if err := m.paused(ctx, func(context.Context) error { return sparse.Clone(to, file) }); err != nil {
		return err
	}
	return syncFile(to)
}

// file is the file behind a drive.
func (m *monitor) file(ctx context.Context, drive string) (string, error) {
	var blocks []struct {
		Device   string
		Inserted struct{ File string }
	}
	if err := m.call(ctx, "query-block", nil, &blocks); err != nil {
		return "", err
	}
	for _, b := range blocks {
		if b.Device == drive {
			return b.Inserted.File, nil
		}
	}
	return "", fmt.Errorf("find disk %q of the VM: there is none", drive)
}

// paused calls f while the guest does not run and nothing is written to its disks. A guest that was paused before stays so.
func (m *monitor) paused(ctx context.Context, f func(context.Context) error) (err error) {
	m.standing.Lock()
	defer m.standing.Unlock()
	state, err := m.status(ctx)
	if err != nil || state != "running" {
		return errors.Join(err, f(ctx))
	}
	if err := m.call(ctx, "stop", nil, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.call(context.WithoutCancel(ctx), "cont", nil, nil)) }()
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	return f(ctx)
}

// mirror has QEMU copy the disk.
func (m *monitor) mirror(ctx context.Context, file, to string, settle func(context.Context) error) (err error) {
	if err := makeLike(to, file); err != nil {
		return err
	}
	target := map[string]any{
		"driver": "raw", "node-name": copyName, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": to, "discard": "unmap"},
	}
	if err := m.call(ctx, "blockdev-add", target, nil); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, m.call(context.WithoutCancel(ctx), "blockdev-del", map[string]any{"node-name": copyName}, nil))
		if err == nil {
			err = syncFile(to)
		}
	}()
	job := map[string]any{"job-id": copyName, "device": dataDrive, "target": copyName, "sync": "full", "auto-dismiss": false}
	if err := m.call(ctx, "blockdev-mirror", job, nil); err != nil {
		return err
	}
	return m.finishMirror(ctx, settle)
}

// finishMirror waits until the copy has caught up with the disk, and ends the job at a moment at which both are the same.
func (m *monitor) finishMirror(ctx context.Context, settle func(context.Context) error) error {
	err := m.awaitJob(ctx, "ready")
	if err == nil {
		err = settle(ctx)
	}
	if err == nil {
		err = m.paused(ctx, func(ctx context.Context) error {
			if err := m.call(ctx, "block-job-cancel", map[string]any{"device": copyName}, nil); err != nil {
				return err
			}
			return m.awaitJob(ctx, "concluded")
		})
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseLimit)
	defer cancel()
	if err != nil { // a job that is over cannot be cancelled: that shows in its state
		_ = m.call(after, "block-job-cancel", map[string]any{"device": copyName, "force": true}, nil)
		if wait := m.awaitJob(after, "concluded"); wait != nil && after.Err() != nil {
			return errors.Join(err, wait)
		}
	}
	return errors.Join(err, m.call(after, "job-dismiss", map[string]any{"id": copyName}, nil))
}

// awaitJob waits until the job is in a state, or has failed.
func (m *monitor) awaitJob(ctx context.Context, want string) error {
	tick := time.NewTicker(jobPause)
	defer tick.Stop()
	for {
		var jobs []struct{ ID, Status, Error string }
		if err := m.call(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		state := "gone"
		for _, j := range jobs {
			if j.ID != copyName {
				continue
			}
			if j.Error != "" {
				return fmt.Errorf("copy the disk: %s", j.Error)
			}
			state = j.Status
		}
		switch state {
		case want:
			return nil
		case "gone", "concluded":
			return fmt.Errorf("copy the disk: the job was %s before it was done", state)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("copy the disk: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// makeLike makes an empty file of another's size.
func makeLike(name, like string) error {
	info, err := os.Stat(like)
	if err != nil {
		return fmt.Errorf("copy the disk: %w", err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy the disk: %w", err)
	}
	return errors.Join(sparse.Make(f), f.Truncate(info.Size()), f.Close())
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("copy the disk: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
