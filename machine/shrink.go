// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/machine/sparse"
	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// TooSmallError says that what is on a disk does not fit a smaller one.
type TooSmallError struct {
	Name string
	MiB  int // asked for
	// Least is the least size in MiB that can be had.
	Least int
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("make the disk of machine %q smaller: what is on it does not fit %d MiB: it needs at least %d MiB", e.Name, e.MiB, e.Least)
}

// Hint names the next step.
func (e *TooSmallError) Hint() string {
	return fmt.Sprintf("remove images, containers or volumes in the machine, or ask for more: `dev machine edit --disk %d %s`", e.Least, e.Name)
}

// reasonShrink is why a snapshot is taken before a disk is replaced by a smaller copy.
const reasonShrink = "shrink"

// spareMiB is what a disk needs beyond the least that its file system can be made to fit.
const spareMiB = 64

// Shrink replaces the data disk of a machine that is stopped by a smaller copy. The copy is made smaller by the machine's own image, its file system is
// checked and all files on it are compared with the old disk's before it takes that one's place. The old disk is kept as a snapshot, whose name is returned.
// Whatever happens before the last step leaves the machine as it was; after it the next command finishes.
func (m *Machine) Shrink(ctx context.Context, mebibytes int, sink Sink) (old string, err error) {
	err = m.underLock(ctx, sink, func() error {
		if len(m.Problems) > 0 {
			return errors.Join(m.Problems...)
		}
		next := m.Spec.clone()
		next.DiskMiB = mebibytes
		if err := errors.Join(next.Validate(m.Name), m.mayShrink(mebibytes)); err != nil {
			return err
		}
		if err := m.settleUpgrade(ctx, sink); err != nil {
			return err
		}
		if err := m.idleDisk(ctx, "make the disk smaller", sink); err != nil {
			return err
		}
		old = m.automaticName("before-shrink")
		return m.shrink(ctx, next, old, sink)
	})
	return old, err
}

// mayShrink says what stands in the way, as far as can be told before the work.
func (m *Machine) mayShrink(mebibytes int) error {
	info, err := os.Stat(m.Dir.DataDisk())
	if err != nil {
		return fmt.Errorf("look at the data disk: %w", err)
	}
	want := int64(mebibytes) << 20
	if want >= info.Size() {
		return &ChangeError{m.Name, "the disk", fmt.Sprintf("it has %d MiB, which is not more than %d MiB", info.Size()>>20, mebibytes)}
	}
	if used := usedBlocks(m.Dir.DataDisk()); used > want {
		return &TooSmallError{Name: m.Name, MiB: mebibytes, Least: leastMiB(used)}
	}
	return m.roomForSnapshot()
}

func leastMiB(bytes int64) int { return int((bytes+1<<20-1)>>20) + spareMiB }

// shrink makes the copy and puts it in the old disk's place.
func (m *Machine) shrink(ctx context.Context, next Spec, safety string, sink Sink) error {
	j := &journal{Kind: kindShrink, Step: stepPrepare, Began: time.Now().UTC()}
	if err := j.write(m.Dir); err != nil {
		return err
	}
	var err error
	if j.Switch, err = m.prepareShrink(ctx, next, safety, sink); err != nil {
		return errors.Join(err, m.sweepChange(""), endJournal(m.Dir))
	}
	j.Step = stepSwitch
	if err := j.write(m.Dir); err != nil {
		return err
	}
	if err := m.finishSwitch(ctx, j.Switch); err != nil {
		return err
	}
	return endJournal(m.Dir)
}

// prepareShrink makes the smaller copy, and a snapshot of what is there.
func (m *Machine) prepareShrink(ctx context.Context, next Spec, safety string, sink Sink) (*diskSwitch, error) {
	if err := m.sweepChange(""); err != nil {
		return nil, err
	}
	text, err := encodeSpec(next)
	if err != nil {
		return nil, err
	}
	copied, size := m.Dir.file(newDisk), int64(next.DiskMiB)<<20
	sink.say(m.Name, "copying the disk")
	if err := sparse.Copy(ctx, copied, m.Dir.DataDisk()); err != nil {
		return nil, err
	}
	report, err := m.maintain(ctx, maintenance{task: proto.Maintenance{Task: proto.TaskShrink, Bytes: size}, disk: copied, original: m.Dir.DataDisk()}, sink)
	if report.Least > 0 {
		return nil, &TooSmallError{Name: m.Name, MiB: next.DiskMiB, Least: leastMiB(report.Least)}
	}
	if err != nil {
		return nil, err
	}
	sink.say(m.Name, fmt.Sprintf("%d files with %d MiB are the same on the smaller disk", report.Files, report.Bytes>>20))
	if err := truncate(copied, size); err != nil {
		return nil, err
	}
	draft, err := m.draftOfPresent(ctx, safety, reasonShrink)
	if err != nil {
		return nil, err
	}
	return &diskSwitch{Disk: newDisk, Draft: draft.Folder(), Safety: safety, Spec: string(text)}, atomicfile.SyncDir(string(m.Dir))
}

// truncate makes a file shorter, durably.
func truncate(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("make the copy smaller: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make the copy smaller: %w", err)
	}
	return nil
}

// Places in ext4's superblock.
const (
	superblockAt   = 1024
	superblockLen  = 1024
	blocksAt       = 0x4
	freeBlocksAt   = 0xc
	blockSizeAt    = 0x18 // log2, less 10
	magicAt        = 0x38
	magic          = 0xef53
	incompatibleAt = 0x60
	has64Bits      = 0x80
	blocksHighAt   = 0x150
	freeHighAt     = 0x158
)

// usedBlocks is what a disk's file system says is in use, in bytes; 0 where it does not say. It may be a little out of date after a crash: who needs to
// know has the file system checked.
func usedBlocks(disk string) int64 {
	f, err := os.Open(disk)
	if err != nil {
		return 0
	}
	defer f.Close()
	s := make([]byte, superblockLen)
	if _, err := f.ReadAt(s, superblockAt); err != nil || binary.LittleEndian.Uint16(s[magicAt:]) != magic {
		return 0
	}
	at := func(offset int) int64 { return int64(binary.LittleEndian.Uint32(s[offset:])) }
	blocks, free, exponent := at(blocksAt), at(freeBlocksAt), at(blockSizeAt)
	if at(incompatibleAt)&has64Bits != 0 {
		blocks, free = blocks|at(blocksHighAt)<<32, free|at(freeHighAt)<<32
	}
	if free > blocks || blocks>>40 > 0 || exponent > 6 {
		return 0
	}
	return (blocks - free) << (10 + exponent)
}

// ForgetShrunk removes the snapshot of the disk before it was made smaller, once the smaller one has proven itself. One that is gone is no error.
func (m *Machine) ForgetShrunk(ctx context.Context, snapshot string) error {
	_, err := m.RemoveSnapshots(ctx, []string{snapshot})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
