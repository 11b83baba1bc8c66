// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

var (
	measureVM = flag.String("measure-vm", "", "compare boots with a systemd guest and write the tables to this file")
	boots     = flag.Int("boots", 3, "how many boots of each guest are measured")
)

// boot is what one boot cost.
type bootCost struct {
	api time.Duration // from QEMU's start to the first answer of the Docker API
	cpu time.Duration // QEMU's processor time until then
}

// series are the boots of one guest.
type series struct {
	name  string
	costs []bootCost
	used  int64 // bytes of guest memory
}

func (s series) median(of func(bootCost) time.Duration) float64 {
	var list []time.Duration
	for _, c := range s.costs {
		list = append(list, of(c))
	}
	slices.Sort(list)
	return list[len(list)/2].Seconds()
}

// TestVMMeasure measures boots beside a guest of the same Debian with systemd and its docker.io package, in turns, under the same QEMU. Every boot but a guest's
// first finds a data disk that was used before.
func TestVMMeasure(t *testing.T) {
	if *measureVM == "" {
		t.Skip("measures: use make bench-vm")
	}
	for _, p := range []string{"qemu-system-x86_64", "mmdebstrap", "mke2fs", "unshare"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatal(err)
		}
	}
	image := testImage(t, "amd64")
	rival := newRival(t)
	fresh := series{name: "dev, q35, empty data disk"}
	ours := []*series{{name: "dev, q35"}, {name: "dev, microvm"}}
	theirs := &series{name: "Debian, systemd, docker.io, q35"}
	var stages []proto.Stage
	machines := []*vm{newVM(t, "amd64", image), newVM(t, "amd64", image)}
	machines[1].microvm = true
	for i := range *boots + 1 {
		for j, m := range machines {
			cost, got, used := measureBoot(t, m)
			switch {
			case i == 0 && j == 0:
				fresh.costs, fresh.used = append(fresh.costs, cost), used
			case i > 0:
				ours[j].costs, ours[j].used = append(ours[j].costs, cost), used
			}
			if j == 0 {
				stages = got
			}
		}
		if cost, used := rival.boot(t); i > 0 {
			theirs.costs, theirs.used = append(theirs.costs, cost), used
		}
	}
	report := measured(image, stages, theirs, append([]*series{&fresh}, ours...))
	t.Log("\n" + report)
	if err := os.WriteFile(*measureVM, []byte(report), 0o644); err != nil {
		t.Fatal(err)
	}
}

// measureBoot boots one of our machines to its engine, and down again.
func measureBoot(t *testing.T, m *vm) (bootCost, []proto.Stage, int64) {
	t.Helper()
	m.boot()
	cost := bootCost{api: time.Since(m.began), cpu: processTime(t, m.cmd.Process.Pid)}
	m.settled()
	var info proto.Info
	if err := m.control().Call(context.Background(), proto.MethodInfo, nil, &info); err != nil {
		t.Fatal(err)
	}
	used := memoryUsed(m.sh("sync; echo 3 > /proc/sys/vm/drop_caches; cat /proc/meminfo"))
	t.Logf("%.1f s, %.1f s of processor, %d MiB, microvm: %v", cost.api.Seconds(), cost.cpu.Seconds(), used>>20, m.microvm)
	m.powerOff()
	return cost, info.Status.Stages, used
}

// processTime is what a process has used of processors.
func processTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100
}

// memoryUsed is what free(1) calls used: neither free nor cache.
func memoryUsed(meminfo string) int64 {
	kib := map[string]int64{}
	for _, line := range strings.Split(meminfo, "\n") {
		name, value, _ := strings.Cut(line, ":")
		kib[strings.TrimSpace(name)], _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
	}
	return (kib["MemTotal"] - kib["MemFree"] - kib["Buffers"] - kib["Cached"] - kib["SReclaimable"]) << 10
}

// rival is a guest as users make one: Debian with systemd, its kernel's own initial RAM disk, and its docker.io package.
type rival struct{ dir, kernel, initrd string }

// rivalSetup configures the guest from outside: an address, the Docker API on TCP, no password, and its memory's use on the console once it is up.
const rivalSetup = `set -e
printf '[Match]\nName=en*\n[Network]\nDHCP=yes\n' > "$1/etc/systemd/network/a.network"
mkdir -p "$1/etc/systemd/system/docker.service.d" "$1/etc/systemd/system/multi-user.target.wants"
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375 --containerd=/run/containerd/containerd.sock\n' > "$1/etc/systemd/system/docker.service.d/tcp.conf"
printf '[Unit]\nAfter=docker.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c "sleep 5; sync; echo 3 > /proc/sys/vm/drop_caches; cat /proc/meminfo > /dev/ttyS0; echo END > /dev/ttyS0"\n' > "$1/etc/systemd/system/memory.service"
ln -s ../memory.service "$1/etc/systemd/system/multi-user.target.wants/memory.service"
ln -s /lib/systemd/system/systemd-networkd.service "$1/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
`

// newRival makes it.
func newRival(t *testing.T) *rival {
	t.Helper()
	r := &rival{dir: t.TempDir()}
	root := filepath.Join(r.dir, "root")
	run := func(name string, args ...string) {
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	// In a mount namespace of its own: what mmdebstrap mounts goes with it, also when it is killed, so that nothing removes files through those mounts.
	run("unshare", "--mount", "--propagation=private", "mmdebstrap", "--variant=minbase", "--customize-hook="+rivalSetup,
		"--include=systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,docker.io,iproute2,iptables,ca-certificates", "bookworm", root)
	run("mke2fs", "-q", "-t", "ext4", "-d", root, filepath.Join(r.dir, "disk"), "3G")
	for pattern, into := range map[string]*string{"vmlinuz-*": &r.kernel, "initrd.img-*": &r.initrd} {
		found, _ := filepath.Glob(filepath.Join(root, "boot", pattern))
		if len(found) != 1 {
			t.Fatalf("the guest has %d of %s", len(found), pattern)
		}
		*into = found[0]
	}
	return r
}

// boot boots it to its engine, reads its memory's use, and turns it off.
func (r *rival) boot(t *testing.T) (bootCost, int64) {
	t.Helper()
	port, console := freePort(t), filepath.Join(r.dir, "console")
	monitor := &vm{t: t, monitor: filepath.Join(r.dir, "qmp"), done: make(chan error, 1)}
	cmd := exec.Command("nice", "-n", "10", "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "file:"+console, "-device", "virtio-rng-pci",
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:2375", port), "-device", "virtio-net-pci,netdev=net,romfile=",
		"-qmp", "unix:"+monitor.monitor+",server=on,wait=off",
		"-drive", "if=none,format=raw,id=root,file="+filepath.Join(r.dir, "disk"), "-device", "virtio-blk-pci,drive=root",
		"-kernel", r.kernel, "-initrd", r.initrd, "-append", "console=ttyS0 quiet root=/dev/vda rw")
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { monitor.done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGKILL) }) // it may have ended
	monitor.await("ask the other guest's engine", func() error {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/_ping", port))
		if err != nil {
			return err
		}
		_, err = io.ReadAll(res.Body)
		return err
	})
	cost := bootCost{api: time.Since(began), cpu: processTime(t, cmd.Process.Pid)}
	var text string
	monitor.await("read the other guest's memory", func() error {
		data, err := os.ReadFile(console)
		if text = string(data); !strings.Contains(text, "END") {
			return fmt.Errorf("the console has no end, %w", err)
		}
		return nil
	})
	used := memoryUsed(text[strings.Index(text, "MemTotal"):])
	t.Logf("%.1f s, %.1f s of processor, %d MiB, the other guest", cost.api.Seconds(), cost.cpu.Seconds(), used>>20)
	monitor.qmp("system_powerdown")
	select {
	case <-monitor.done:
	case <-time.After(patience):
		t.Fatal("the other guest did not power off")
	}
	return cost, used
}

// measured writes the tables.
func measured(image string, stages []proto.Stage, rival *series, ours []*series) string {
	api, cpu := func(c bootCost) time.Duration { return c.api }, func(c bootCost) time.Duration { return c.cpu }
	var b strings.Builder
	b.WriteString("| guest | QEMU's start → Docker API | ratio | processor time until then | ratio | memory used at idle |\n|---|---|---|---|---|---|\n")
	for _, s := range append(ours, rival) {
		fmt.Fprintf(&b, "| %s | %.1f s | %.2f | %.1f s | %.2f | %d MiB |\n", s.name, s.median(api), s.median(api)/rival.median(api),
			s.median(cpu), s.median(cpu)/rival.median(cpu), s.used>>20)
	}
	b.WriteString("\n| stage (q35, seconds since the kernel started) | |\n|---|---|\n")
	for _, s := range stages {
		fmt.Fprintf(&b, "| %s | %.2f |\n", s.Name, s.Seconds)
	}
	b.WriteString("\n| file | MiB |\n|---|---|\n")
	for _, name := range imageFiles {
		if info, err := os.Stat(filepath.Join(image, name)); err == nil {
			fmt.Fprintf(&b, "| %s | %.1f |\n", name, float64(info.Size())/(1<<20))
		}
	}
	return b.String()
}
