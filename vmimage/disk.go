// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Places on the UEFI disk, in bytes: two partitions, each on a border of 1 MiB.
const (
	mebi       = 1 << 20
	sector     = 512
	espLabel   = "DEV-BOOT"
	gptReserve = mebi // for the second copy of the partition table, at the end
	// minESP is the smallest FAT32 file system that all firmware takes for one: it tells FAT32 by having more than 65525 clusters.
	minESP = 64 * mebi
)

// efiName is the program that firmware starts from a disk it was not told about.
var efiName = map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}

var rootType = map[string]gpt.Type{"amd64": gpt.LinuxRootX86_64, "arm64": gpt.LinuxRootArm64}

// writeDisk makes a disk that UEFI firmware boots: a partition table, a FAT partition with the unified kernel image, and one with the root. Nothing in
// it is random: identifiers derive from the root's.
func writeDisk(name, arch, uuid string, uki []byte, rootfs string) (err error) {
	root, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat()
	if err != nil {
		return err
	}
	esp := max(minESP, roundUp(int64(len(uki))+8*mebi))
	rootSize := roundUp(info.Size())
	total := mebi + esp + rootSize + gptReserve
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOnce(f)) }()
	if err := f.Truncate(total); err != nil {
		return err
	}
	table := &gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: derivedID(uuid, 'd'),
		Partitions: []*gpt.Partition{
			partition(1, mebi, esp, gpt.EFISystemPartition, "boot", derivedID(uuid, 'b')),
			partition(2, mebi+esp, rootSize, rootType[arch], rootLabel, derivedID(uuid, 'a')),
		},
	}
	if err := table.Write(f, total); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	serial, err := strconv.ParseUint(uuid[:8], 16, 32)
	if err != nil {
		return fmt.Errorf("derive volume serial from %q: %w", uuid, err)
	}
	if err := writeFAT(f, mebi, esp, espLabel, uint32(serial), "EFI/BOOT/"+efiName[arch], uki); err != nil {
		return fmt.Errorf("write boot partition: %w", err)
	}
	if _, err := io.Copy(io.NewOffsetWriter(f, mebi+esp), root); err != nil {
		return fmt.Errorf("write root partition: %w", err)
	}
	return f.Sync()
}

func partition(index int, start, size int64, kind gpt.Type, name, guid string) *gpt.Partition {
	return &gpt.Partition{
		Index: index, Start: uint64(start / sector), End: uint64((start+size)/sector - 1), Size: uint64(size), Type: kind, Name: name, GUID: guid,
	}
}

// derivedID is an identifier that differs from uuid in its last digit's place only.
func derivedID(uuid string, digit byte) string { return uuid[:len(uuid)-1] + string(digit) }

func roundUp(n int64) int64 { return (n + mebi - 1) / mebi * mebi }
