// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
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
	args = append(args, memory(h, spec)...)
	args = append(args, "-smp", strconv.Itoa(spec.CPUs), "-rtc", "base=utc")
	args = append(args, "-chardev", monitorDevice(dir), "-mon", "chardev=qmp,mode=control")
	args = append(args, "-chardev", "file,id=console,path="+quote(link.Console)+",append=on", "-serial", "chardev:console")
	args = append(args,
		"-kernel", filepath.Join(i.Dir, vmimage.KernelName), "-initrd", filepath.Join(i.Dir, vmimage.InitrdName),
		"-append", kernelArguments(spec.Arch, i.RootUUID),
	)
	args = append(args, disk("root", filepath.Join(i.Dir, vmimage.RootName), "readonly=on")...)
	args = append(args, disk("seed", link.Seed, "readonly=on")...)
	args = append(args, disk(dataID, cmp.Or(link.Data, dir.DataDisk()), "readonly=off,discard=unmap,detect-zeroes=unmap")...)
	for _, d := range link.Disks {
		args = append(args, furtherDisk(d)...)
	}
	if link.Network != "" {
		args = append(args,
			"-netdev", "stream,id=net,server=off,addr.type=unix,addr.path="+quote(link.Network),
			"-device", "virtio-net-pci,netdev=net,mac="+link.MAC+",romfile=",
		)
	}
	args = append(args, "-device", "virtio-rng-pci", "-device", balloon)
	for i := range sharePorts(spec) {
		args = append(args, "-device", "pcie-root-port,id="+portName(i)+",chassis="+strconv.Itoa(i+1)+",slot="+strconv.Itoa(i+1))
	}
	if link.State != "" {
		args = append(args, "-incoming", "defer")
	}
	if link.State != "" || len(link.Shares) > 0 {
		args = append(args, "-S") // until its memory is there, or its shares
	}
	return args
}

// sharePorts is how many slots there are for shares, which are plugged in while the VM runs: a VM with such a device in it cannot be suspended. How many
// there are is the spec's, not the link's: a saved state fits only the same board.
func sharePorts(spec machine.Spec) int { return spec.ShareDevices() }

func portName(i int) string { return "share-port" + strconv.Itoa(i) }

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

// memoryPath is where QEMU finds the memory that it was started with: the first file after the three that every program has.
const memoryPath = "/proc/self/fd/3"

// memory is shared with other processes: with those that serve shares, and on Linux with the one that saves it.
func memory(h host, spec machine.Spec) []string {
	size := strconv.Itoa(spec.MemoryMiB) + "M"
	switch {
	case h.OS == "linux":
		return []string{"-m", size, "-object", "memory-backend-file,id=memory,share=on,size=" + size + ",mem-path=" + memoryPath, "-machine", "memory-backend=memory"}
	case spec.ShareDevices() > 0 && h.OS != "windows":
		return []string{"-m", size, "-object", "memory-backend-shm,id=memory,size=" + size, "-machine", "memory-backend=memory"}
	}
	return []string{"-m", size}
}

// balloon is the device that memory is given back with: what the guest reports as free at once, and more when the host agent asks for it. A guest that would
// have to kill a program takes back what it gave. Under emulation, too, the reports pay: QEMU's memory falls by what the guest let go.
const balloon = "virtio-balloon-pci,id=balloon,deflate-on-oom=on,free-page-reporting=on"

// kernelArguments: the serial port is the console, a panic is followed by a reboot, and the root is known by its identity.
func kernelArguments(arch, rootUUID string) string {
	console := "ttyS0"
	if arch == "arm64" {
		console = "ttyAMA0"
	}
	return "console=" + console + " quiet loglevel=4 panic=10 dev.root=" + rootUUID
}

// dataID is the data disk to QEMU.
const dataID = "data"

// furtherDisk is a disk that the guest knows by its serial number. What is written to one whose writes are forgotten lies in a temporary file.
func furtherDisk(d hostagent.Disk) []string {
	options := "readonly=off"
	if d.Discard {
		options += ",snapshot=on"
	}
	args := disk(d.Name, d.File, options)
	args[len(args)-1] += ",serial=" + quote(d.Name)
	return args
}

// disk is a virtio disk on a raw file.
func disk(id, file, options string) []string {
	return []string{"-drive", "if=none,id=" + id + ",format=raw," + options + ",file=" + quote(file), "-device", "virtio-blk-pci,drive=" + id}
}
