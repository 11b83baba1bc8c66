// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/machine"
	"github.com/seed71221737/dev/vmimage"
)

// host is what a command line depends on besides the machine.
type host struct {
	OS          string // as runtime.GOOS
	Accelerator string // kvm, hvf, whpx or tcg
}

// image is where the image's files are, and what the kernel is told.
type image struct {
	Dir, RootUUID string
}

// quote makes a value safe within an option: a comma would end it.
func quote(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// monitorDevice is the option of the monitor's socket. It has the machine's folder in it, and so tells one machine's QEMU from all others.
func monitorDevice(dir machine.Dir) string {
	return "socket,id=qmp,path=" + quote(dir.Monitor()) + ",server=on,wait=off"
}

// commandLine is QEMU's arguments, without the program.
func commandLine(h host, i image, dir machine.Dir, spec machine.Spec, link hostagent.Link) []string {
	args := []string{"-name", "guest=" + quote(dir.Name()), "-no-user-config", "-nodefaults", "-display", "none"}
	args = append(args, platform(h, spec)...)
	args = append(args, memory(h, spec, link)...)
	args = append(args, "-smp", strconv.Itoa(spec.CPUs), "-rtc", "base=utc")
	args = append(args, "-chardev", monitorDevice(dir), "-mon", "chardev=qmp,mode=control")
	args = append(args, "-chardev", "file,id=console,path="+quote(link.Console)+",append=on", "-serial", "chardev:console")
	args = append(args,
		"-kernel", filepath.Join(i.Dir, vmimage.KernelName), "-initrd", filepath.Join(i.Dir, vmimage.InitrdName),
		"-append", kernelArguments(spec.Arch, i.RootUUID),
	)
	args = append(args, disk("root", filepath.Join(i.Dir, vmimage.RootName), "readonly=on")...)
	args = append(args, disk("seed", link.Seed, "readonly=on")...)
	args = append(args, disk("data", dir.DataDisk(), "readonly=off,discard=unmap,detect-zeroes=unmap")...)
	args = append(args,
		"-netdev", "stream,id=net,server=off,addr.type=unix,addr.path="+quote(link.Network),
		"-device", "virtio-net-pci,netdev=net,mac="+link.MAC+",romfile=",
		"-device", "virtio-rng-pci",
		"-device", balloon(h),
	)
	for _, s := range link.Shares {
		id := "share-" + s.Tag
		args = append(args, "-chardev", "socket,id="+id+",path="+quote(s.Socket), "-device", "vhost-user-fs-pci,chardev="+id+",tag="+quote(s.Tag)+",queue-size=1024")
	}
	return args
}

// platform is the board, the accelerator and the processor.
func platform(h host, spec machine.Spec) []string {
	return []string{"-machine", board(h, spec.Arch), "-accel", accelerate(h), "-cpu", processor(h, spec.Arch)}
}

func board(h host, arch string) string {
	if arch == "amd64" {
		return "q35"
	}
	if h.Accelerator == "hvf" {
		return "virt" // the framework's own interrupt controller is QEMU's to choose
	}
	return "virt,gic-version=max" // the older one serves eight processors
}

func accelerate(h host) string {
	switch h.Accelerator {
	case "tcg":
		return "tcg,thread=multi,tb-size=256" // MiB of translated code; the default is a quarter of the guest's memory or more
	case "whpx":
		return "whpx,kernel-irqchip=off" // message-signalled interrupts get lost in the platform's own
	}
	return h.Accelerator
}

// processor is the host's own where it is used as it is. Under emulation arm64's "max" spends most of its time on pointer authentication.
func processor(h host, arch string) string {
	switch {
	case h.Accelerator == "kvm", h.Accelerator == "hvf":
		return "host"
	case arch == "arm64":
		return "cortex-a57"
	case h.Accelerator == "whpx":
		return "Westmere" // "host" does not exist here, and "max" claims more than the platform gives
	}
	return "max"
}

// memory is shared with other processes where shares are served by some.
func memory(h host, spec machine.Spec, link hostagent.Link) []string {
	size := strconv.Itoa(spec.MemoryMiB) + "M"
	if len(link.Shares) == 0 {
		return []string{"-m", size}
	}
	backend := "memory-backend-memfd,id=memory,share=on,size=" + size
	if h.OS != "linux" {
		backend = "memory-backend-shm,id=memory,size=" + size
	}
	return []string{"-m", size, "-object", backend, "-machine", "memory-backend=memory"}
}

// balloon takes memory from the guest when it is asked to, and gives back what the guest reports as free. Emulation keeps more about guest
// memory than its contents, and gains little by giving it back: it does without the reports.
func balloon(h host) string {
	if h.Accelerator == "tcg" {
		return "virtio-balloon-pci,id=balloon"
	}
	return "virtio-balloon-pci,id=balloon,free-page-reporting=on"
}

// kernelArguments: the serial port is the console, a panic is followed by a reboot, and the root is known by its identity.
func kernelArguments(arch, rootUUID string) string {
	console := "ttyS0"
	if arch == "arm64" {
		console = "ttyAMA0"
	}
	return "console=" + console + " quiet loglevel=4 panic=10 dev.root=" + rootUUID
}

// disk is a virtio disk on a raw file.
func disk(id, file, options string) []string {
	return []string{"-drive", "if=none,id=" + id + ",format=raw," + options + ",file=" + quote(file), "-device", "virtio-blk-pci,drive=" + id}
}
