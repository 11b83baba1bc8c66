// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

const (
	dataFolder = "/var"
	layoutFile = "/var/.dev-data.json"
	swapFile   = "/var/.dev-swap"
)

// runner runs a program to its end and returns what it said and its exit code.
type runner func(ctx context.Context, name string, args ...string) (output string, exit int, err error)

// listDisks probes all whole disks.
func listDisks() []disk {
	var disks []disk
	names, _ := filepath.Glob("/sys/block/*")
	for _, dir := range names {
		name := filepath.Base(dir)
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") || strings.HasPrefix(name, "sr") {
			continue
		}
		d := disk{name: name, size: sysNumber(dir+"/size") * 512, readOnly: sysNumber(dir+"/ro") == 1, serial: sysText(dir + "/serial")}
		parts, _ := filepath.Glob(dir + "/" + name + "*")
		d.partitioned = len(parts) > 0
		if f, err := os.Open("/dev/" + name); err == nil {
			d.holds, d.uuid, _ = probe(f, d.size) // a disk that cannot be read holds something else
			_ = f.Close()
		}
		disks = append(disks, d)
	}
	return disks
}

func sysText(file string) string {
	data, _ := os.ReadFile(file) // not every device has it
	return strings.TrimSpace(string(data))
}

func sysNumber(file string) int64 {
	n, _ := strconv.ParseInt(sysText(file), 10, 64)
	return n
}

// readSeed finds the seed among the disks; nil where there is none.
func readSeed(disks []disk) (*proto.Seed, error) {
	for _, d := range disks {
		if d.holds != contentSeed {
			continue
		}
		f, err := os.Open("/dev/" + d.name)
		if err != nil {
			return nil, fmt.Errorf("read seed: %w", err)
		}
		defer f.Close()
		return proto.DecodeSeed(f)
	}
	return nil, nil
}

// mountData finds, checks and mounts the data disk at /var. Without one, or with one that is refused, /var is in memory: the agent works, and an error
// says why the engine must not start.
func mountData(ctx context.Context, disks []disk, expected bool, run runner, r *record) error {
	name, action, err := chooseData(disks)
	if action == dataNone && expected {
		err = errors.New("find the data disk: there is none among the machine's disks: attach it and start the machine again")
	}
	device := "/dev/" + name
	if err == nil {
		switch action {
		case dataNone:
			r.warn("there is no data disk: images, containers and volumes are lost at power-off")
		case dataFormat:
			err = format(ctx, device, run)
			r.stage("data disk formatted")
		case dataRepair:
			r.warn("the data disk's first superblock is gone: repaired from a spare")
			err = check(ctx, device, run, r, "-b", "32768", "-B", "4096")
		case dataUse:
			err = check(ctx, device, run, r)
		}
	}
	if err == nil && action != dataNone {
		err = useData(ctx, device, run, r)
	}
	if err != nil || action == dataNone {
		if e := unix.Mount("tmpfs", dataFolder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); e != nil {
			return errors.Join(err, fmt.Errorf("mount %q in memory: %w", dataFolder, e))
		}
	}
	return errors.Join(err, dataFolders())
}

// format makes the file system of a blank disk. The mark makes a format that is cut off start over. The block size is fixed so that the first spare
// superblock is where probe looks for it.
func format(ctx context.Context, device string, run runner) error {
	if err := setMark(device); err != nil {
		return fmt.Errorf("format data disk: %w", err)
	}
	out, exit, err := run(ctx, "mkfs.ext4", "-q", "-F", "-b", "4096", "-L", dataLabel, "-m", "1", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", device)
	if err != nil {
		return fmt.Errorf("format data disk %q: %w", device, err)
	}
	if exit != 0 {
		return fmt.Errorf("format data disk %q: exit code %d: %s", device, exit, strings.TrimSpace(out))
	}
	if err := clearMark(device); err != nil {
		return fmt.Errorf("format data disk: %w", err)
	}
	return nil
}

// setMark notes on the disk that formatting has begun.
func setMark(device string) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(formattingMark), formattingAt)
	if errors.Is(err, unix.ENOSPC) {
		err = nil // a disk of less than 128 MiB has no such place, and formats in no time
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// clearMark takes the note back, unless formatting has written something else there.
func clearMark(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if hasFormattingMark(f) {
		_, err = f.WriteAt(make([]byte, len(formattingMark)), formattingAt)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// check replays the journal and mends what can be mended. What e2fsck does not mend by itself it is told to; when that fails too, the disk is refused.
func check(ctx context.Context, device string, run runner, r *record, extra ...string) error {
	const fixed, uncorrected = 1, 4
	out, exit, err := "", uncorrected, error(nil)
	if len(extra) == 0 {
		out, exit, err = run(ctx, "e2fsck", "-p", device)
	}
	if err == nil && exit >= uncorrected {
		r.line("e2fsck: %s", strings.TrimSpace(out))
		out, exit, err = run(ctx, "e2fsck", append(append([]string{"-f", "-y"}, extra...), device)...)
		if exit < uncorrected {
			r.warn("the data disk was damaged and has been repaired; files without a name are in /var/lost+found")
		}
	}
	if err != nil {
		return fmt.Errorf("check data disk: %w", err)
	}
	if exit >= uncorrected {
		return fmt.Errorf("check data disk %q: e2fsck cannot repair it (exit code %d): it is left alone. Restore it from a copy: %s", device, exit, lastLine(out))
	}
	if exit == fixed {
		r.line("data disk: %s", lastLine(out))
	}
	return nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// useData mounts the disk, refuses a layout that this image does not know, and grows the file system when the disk grew.
func useData(ctx context.Context, device string, run runner, r *record) error {
	if err := unix.Mount(device, dataFolder, "ext4", unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mount data disk %q: %w", device, err)
	}
	if err := upgradeLayout(r); err != nil {
		return errors.Join(err, unix.Unmount(dataFolder, 0))
	}
	// resize2fs looks at both sizes itself, and does nothing when they agree.
	if out, exit, err := run(ctx, "resize2fs", device); err != nil || exit != 0 {
		r.warn("grow the data disk: %s", lastLine(out))
	}
	return nil
}

func upgradeLayout(r *record) error {
	file, err := os.ReadFile(layoutFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the data disk's layout version: %w", err)
	}
	err = migrate(file, dataFolder, migrations, func(l layout) error {
		data, err := json.Marshal(l)
		if err != nil {
			return err
		}
		return writeSynced(layoutFile, data)
	})
	if err == nil {
		r.change(func(s *proto.Status) { s.DataSchema = DataSchema })
	}
	return err
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// dataFolders are what programs expect below /var.
func dataFolders() error {
	var errs []error
	for dir, mode := range map[string]os.FileMode{"lib": 0o755, "lib/docker": 0o710, "lib/containerd": 0o711, "log": 0o755, "log/dev": 0o755, "cache": 0o755, "tmp": 0o1777, "spool": 0o755} {
		errs = append(errs, os.MkdirAll(filepath.Join(dataFolder, dir), mode))
	}
	errs = append(errs, os.Chmod(filepath.Join(dataFolder, "tmp"), os.ModeSticky|0o777))
	for name, target := range map[string]string{"run": "/run", "lock": "/run/lock"} {
		errs = append(errs, runtimeLink(filepath.Join(dataFolder, name), target))
	}
	return errors.Join(errs...)
}

// runtimeLink makes an old name of a folder in memory lead there: containers are given /var/run/docker.sock. A folder in its place, which an engine
// made when it did not find the link, holds nothing.
func runtimeLink(name, target string) error {
	if have, err := os.Readlink(name); err == nil && have == target {
		return nil
	}
	return errors.Join(os.RemoveAll(name), os.Symlink(target, name))
}

// swap turns on what the seed asks for.
func swap(ctx context.Context, seed *proto.Seed, run runner) error {
	var errs []error
	if seed.ZramMiB > 0 {
		errs = append(errs, zram(ctx, seed.ZramMiB, run))
	}
	if seed.SwapMiB > 0 {
		errs = append(errs, swapOn(ctx, seed.SwapMiB, run))
	}
	return errors.Join(errs...)
}

func zram(ctx context.Context, mib int, run runner) error {
	if err := os.WriteFile("/sys/block/zram0/disksize", []byte(strconv.Itoa(mib)+"M"), 0o644); err != nil {
		return fmt.Errorf("make compressed swap: %w", err)
	}
	return enableSwap(ctx, "/dev/zram0", 1, run)
}

func swapOn(ctx context.Context, mib int, run runner) error {
	f, err := os.OpenFile(swapFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make swap file: %w", err)
	}
	err = errors.Join(f.Truncate(0), unix.Fallocate(int(f.Fd()), 0, 0, int64(mib)<<20), f.Close())
	if err != nil {
		return fmt.Errorf("make swap file of %d MiB: %w", mib, errors.Join(err, os.Remove(swapFile)))
	}
	return enableSwap(ctx, swapFile, 0, run)
}

func enableSwap(ctx context.Context, name string, priority int, run runner) error {
	if out, exit, err := run(ctx, "busybox", "mkswap", name); err != nil || exit != 0 {
		return errors.Join(fmt.Errorf("make swap on %q: %s", name, lastLine(out)), err)
	}
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return fmt.Errorf("turn on swap on %q: %w", name, err)
	}
	const prefer = 0x8000 // SWAP_FLAG_PREFER: the low bits are the priority
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), uintptr(prefer|priority), 0); errno != 0 {
		return fmt.Errorf("turn on swap on %q: %w", name, errno)
	}
	return nil
}

// command makes a runner on top of a process table, which owns all waiting.
func (t *table) command(ctx context.Context, name string, args ...string) (string, int, error) {
	var out strings.Builder
	pr, pw, err := os.Pipe()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = pw, pw
	cmd.Env = baseEnv
	done, err := t.start(cmd)
	_ = pw.Close() // the program has its own
	if err != nil {
		_ = pr.Close()
		return "", 0, fmt.Errorf("run %q: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, err := pr.Read(buf)
		if out.Len() < 64<<10 {
			out.Write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_ = pr.Close() // read to its end
	status := <-done
	if status.Signaled() {
		return out.String(), 128 + int(status.Signal()), nil
	}
	return out.String(), status.ExitStatus(), nil
}
