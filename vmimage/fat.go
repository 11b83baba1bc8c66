// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The FAT32 file system of a boot partition: one sector per cluster, two copies of the table, and the folders above one file. It is written here, and
// not by a library, because those take the time of day from the process's clock or environment, and the same image must give the same disk.
const (
	fatReserved  = 32 // sectors before the first table
	fatTables    = 2
	fatEnd       = 0x0fffffff
	fatRoot      = 2 // the root folder's cluster; the folders and the file follow
	fatEntryLen  = 32
	fatDirectory = 0x10
	fatArchive   = 0x20
	fatVolume    = 0x08
	fatEpoch     = 0x0021 // 1 January 1980
)

// writeFAT formats size bytes from start of w and puts one file there. The path is of short names: upper case, eight and three characters.
func writeFAT(w io.WriterAt, start, size int64, label string, serial uint32, path string, data []byte) error {
	sectors := uint32(size / sector)
	perTable := (sectors*4 + sector - 1) / sector
	first := int64(fatReserved + fatTables*perTable) // the sector of cluster 2
	dirs := strings.Split(path, "/")
	name := dirs[len(dirs)-1]
	dirs = dirs[:len(dirs)-1]
	fileAt := uint32(fatRoot + 1 + len(dirs))
	clusters := uint32((len(data) + sector - 1) / sector)
	if int64(fileAt+clusters)+first > int64(sectors) {
		return fmt.Errorf("%q with %d bytes does not fit into %d", path, len(data), size)
	}
	put := func(at int64, b []byte) error {
		_, err := w.WriteAt(b, start+at*sector)
		return err
	}
	boot, info := fatBoot(sectors, perTable, label, serial), fatInfo(sectors-uint32(first)-fileAt-clusters+2, fileAt+clusters)
	table := fatTable(fileAt, clusters)
	for _, part := range []struct {
		at   int64
		data []byte
	}{{0, boot}, {1, info}, {6, boot}, {7, info}, {fatReserved, table}, {fatReserved + int64(perTable), table}, {first + int64(fileAt) - 2, data}} {
		if err := put(part.at, part.data); err != nil {
			return err
		}
	}
	for i := range len(dirs) + 1 {
		if err := put(first+int64(i), fatFolder(i, dirs, label, name, fileAt, uint32(len(data)))); err != nil {
			return err
		}
	}
	return nil
}

// fatBoot is the first sector.
func fatBoot(sectors, perTable uint32, label string, serial uint32) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, "\xeb\x58\x90DEV     ")
	le.PutUint16(b[11:], sector)
	b[13] = 1 // sectors per cluster
	le.PutUint16(b[14:], fatReserved)
	b[16] = fatTables
	b[21] = 0xf8               // a fixed disk
	le.PutUint16(b[24:], 32)   // sectors per track and heads: nobody asks any more
	le.PutUint16(b[26:], 64)   //
	le.PutUint32(b[28:], 2048) // sectors before the partition
	le.PutUint32(b[32:], sectors)
	le.PutUint32(b[36:], perTable)
	le.PutUint32(b[44:], fatRoot)
	le.PutUint16(b[48:], 1) // the information sector
	le.PutUint16(b[50:], 6) // the copy of this sector
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], serial)
	copy(b[71:], fmt.Sprintf("%-11s%-8s", label, "FAT32"))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// fatInfo is the information sector: how much is free and where to look.
func fatInfo(free, next uint32) []byte {
	b := make([]byte, sector)
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	binary.LittleEndian.PutUint32(b[488:], free)
	binary.LittleEndian.PutUint32(b[492:], next)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// fatTable chains the file's clusters; each folder has one cluster.
func fatTable(fileAt, clusters uint32) []byte {
	b := make([]byte, (fileAt+clusters)*4)
	le := binary.LittleEndian
	le.PutUint32(b, 0x0ffffff8)
	for c := uint32(1); c < fileAt+clusters; c++ {
		next := uint32(fatEnd)
		if c >= fileAt && c < fileAt+clusters-1 {
			next = c + 1
		}
		le.PutUint32(b[c*4:], next)
	}
	return b
}

// fatFolder is the i-th folder on the way to the file: the root first.
func fatFolder(i int, dirs []string, label, name string, fileAt, size uint32) []byte {
	b := make([]byte, 0, sector)
	if i == 0 {
		b = append(b, fatEntry(label, fatVolume, 0, 0)...)
	} else {
		parent := uint32(fatRoot + i - 1)
		if i == 1 {
			parent = 0 // the root is called 0 by its children
		}
		b = append(b, fatEntry(".", fatDirectory, uint32(fatRoot+i), 0)...)
		b = append(b, fatEntry("..", fatDirectory, parent, 0)...)
	}
	if i < len(dirs) {
		b = append(b, fatEntry(dirs[i], fatDirectory, uint32(fatRoot+i+1), 0)...)
	} else {
		b = append(b, fatEntry(name, fatArchive, fileAt, size)...)
	}
	return b[:sector]
}

func fatEntry(name string, kind byte, cluster, size uint32) []byte {
	b := make([]byte, fatEntryLen)
	base, ext, _ := strings.Cut(name, ".")
	if strings.HasPrefix(name, ".") || kind == fatVolume {
		base, ext = name, ""
	}
	copy(b, fmt.Sprintf("%-8s%-3s", base, ext))
	b[11] = kind
	le := binary.LittleEndian
	le.PutUint16(b[16:], fatEpoch)
	le.PutUint16(b[18:], fatEpoch)
	le.PutUint16(b[20:], uint16(cluster>>16))
	le.PutUint16(b[24:], fatEpoch)
	le.PutUint16(b[26:], uint16(cluster))
	le.PutUint32(b[28:], size)
	return b
}
