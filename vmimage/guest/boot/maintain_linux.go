// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// maintain does the work on the data disk that the seed asks for, tells of it on the report disk, and turns the machine off.
func (m *machine) maintain(ctx context.Context) {
	defer func() { _ = unix.Kill(os.Getpid(), SignalPowerOff) }()
	_ = m.index.load("evdev", "button") // for the power button; without it the work cannot be ended in order
	j, err := m.newJob()
	if err != nil {
		m.record.problem("%v", err)
		return
	}
	switch m.seed.Maintenance.Task {
	case proto.TaskTrim:
		err = j.trim(ctx)
	case proto.TaskShrink:
		err = j.shrink(ctx, m.seed.Maintenance.Bytes)
	}
	j.report.Step, j.report.Done = "done", err == nil
	if err != nil {
		j.report.Error = err.Error()
		m.record.problem("%v", err)
	}
	if err := j.tell(); err != nil {
		m.record.problem("%v", err)
	}
}

// job is one maintenance of a disk.
type job struct {
	run            runner
	record         *record
	data, original string // devices; the second is empty where there is none
	reportDisk     string
	report         proto.Report
}

// newJob waits for the disks of the work.
func (m *machine) newJob() (*job, error) {
	j := &job{run: m.table.command, record: m.record}
	began := time.Now()
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		err := j.find(listDisks(), m.seed.Maintenance.Task == proto.TaskShrink)
		if err == nil {
			tick.Stop()
			return j, nil
		}
		if time.Since(began) > dataWait {
			tick.Stop()
			return nil, fmt.Errorf("begin maintenance: %w", err)
		}
	}
}

// find picks the disks of the work.
func (j *job) find(disks []disk, copied bool) error {
	j.reportDisk, j.original = "", ""
	for _, d := range disks {
		switch {
		case d.holds == contentReport && !d.readOnly:
			j.reportDisk = "/dev/" + d.name
		case d.serial == proto.OriginalDisk:
			j.original = "/dev/" + d.name
		}
	}
	name, action, err := chooseData(disks)
	switch {
	case j.reportDisk == "":
		return errors.New("there is no report disk")
	case copied && j.original == "":
		return errors.New("the disk that the data disk is a copy of is not there")
	case err != nil:
		return err
	case action == dataNone || action == dataFormat:
		return errors.New("there is no data disk with something on it")
	}
	j.data = "/dev/" + name
	return nil
}

// step says what is done now.
func (j *job) step(text string) error {
	j.record.stage(text)
	j.report.Step = text
	return j.tell()
}

// tell writes the report where the host reads it.
func (j *job) tell() error {
	data, err := proto.EncodeReport(j.report)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.reportDisk, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("tell of maintenance: %w", err)
	}
	_, err = f.WriteAt(data, 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("tell of maintenance: %w", err)
	}
	return nil
}

// Folders in memory that disks are mounted at.
const (
	dataAt     = "/mnt/data"
	originalAt = "/mnt/original"
)

// trim checks the disk and gives back what is free.
func (j *job) trim(ctx context.Context) (err error) {
	if err := j.step("checking the disk"); err != nil {
		return err
	}
	if err := check(ctx, j.data, j.run, j.record); err != nil {
		return err
	}
	if err := j.step("giving back what is free"); err != nil {
		return err
	}
	if err := mountAt(j.data, dataAt, 0); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dataAt, 0)) }()
	j.report.Trimmed, err = fitrim(dataAt)
	return err
}

// shrink makes the copy's file system smaller, and proves that it holds what the original does.
func (j *job) shrink(ctx context.Context, bytes int64) error {
	if err := j.step("checking the copy"); err != nil {
		return err
	}
	if err := j.checkFully(ctx, j.data, "-y"); err != nil {
		return err
	}
	if err := j.fits(ctx, bytes); err != nil {
		return err
	}
	if err := j.step("making the copy smaller"); err != nil {
		return err
	}
	if out, exit, err := j.run(ctx, "resize2fs", j.data, strconv.FormatInt(bytes/1024, 10)+"K"); err != nil || exit != 0 {
		return errors.Join(fmt.Errorf("shrink the file system: %s", lastLine(out)), err)
	}
	if err := j.step("checking the smaller copy"); err != nil {
		return err
	}
	if err := j.checkFully(ctx, j.data, "-n"); err != nil {
		return err
	}
	return j.verify(ctx)
}

// checkFully looks at all of a file system; with "-n" it must be found without a fault.
func (j *job) checkFully(ctx context.Context, device, how string) error {
	const repaired = 2 // the highest exit code of a disk that is good now
	out, exit, err := j.run(ctx, "e2fsck", "-f", how, device)
	if err != nil {
		return fmt.Errorf("check the disk: %w", err)
	}
	if how == "-n" && exit != 0 || exit > repaired {
		return fmt.Errorf("check the disk: e2fsck finds faults (exit code %d): %s", exit, lastLine(out))
	}
	return nil
}

var leastBlocks = regexp.MustCompile(`(?m)^Estimated minimum size of the filesystem: (\d+)`)

// fits says how small the file system can be, where that is not small enough.
func (j *job) fits(ctx context.Context, bytes int64) error {
	const blockSize = 4096 // of every data disk
	out, exit, err := j.run(ctx, "resize2fs", "-P", j.data)
	found := leastBlocks.FindStringSubmatch(out)
	if err != nil || exit != 0 || found == nil {
		return errors.Join(fmt.Errorf("find out how small the file system can be: %s", lastLine(out)), err)
	}
	blocks, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return fmt.Errorf("find out how small the file system can be: %w", err)
	}
	if least := blocks * blockSize; least > bytes {
		j.report.Least = least
		return errors.New("the data does not fit")
	}
	return nil
}

// verify compares the copy with the original.
func (j *job) verify(ctx context.Context) (err error) {
	if err := j.step("comparing all files"); err != nil {
		return err
	}
	if err := check(ctx, j.original, j.run, j.record); err != nil {
		return err
	}
	if err := mountAt(j.original, originalAt, unix.MS_RDONLY); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(originalAt, 0)) }()
	if err := mountAt(j.data, dataAt, 0); err != nil {
		return err
	}
	// resize2fs gives folders whose files it gave other numbers the present time.
	if err := errors.Join(copyFolderTimes(ctx, originalAt, dataAt), unix.Unmount(dataAt, 0)); err != nil {
		return err
	}
	if err := mountAt(j.data, dataAt, unix.MS_RDONLY); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dataAt, 0)) }()
	j.report.Files, j.report.Bytes, err = compareTrees(ctx, originalAt, dataAt, func(files, bytes int64) {
		j.report.Files, j.report.Bytes = files, bytes
		_ = j.tell() // the last one counts
	})
	return err
}

func mountAt(device, folder string, flags uintptr) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("mount %q: %w", device, err)
	}
	if err := unix.Mount(device, folder, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|flags, ""); err != nil {
		return fmt.Errorf("mount %q: %w", device, err)
	}
	return nil
}

// fitrimCall is _IOWR(0x58, 121, struct fstrim_range) of linux/fs.h.
const fitrimCall = 0xc0185879

// fitrim gives free blocks of a mounted file system back, and says how many bytes they have.
func fitrim(dir string) (int64, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, fmt.Errorf("trim the data disk: %w", err)
	}
	defer f.Close()
	r := struct{ start, length, minimum uint64 }{length: math.MaxUint64}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fitrimCall, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return 0, fmt.Errorf("trim the data disk: %w", errno)
	}
	return int64(r.length), nil
}
