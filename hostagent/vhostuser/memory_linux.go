// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// region is a part of the guest's memory: where the guest has it, where the VM's process has it, and where it is in a file.
type region struct {
	guest, size, user, offset uint64
	file                      int
	mapped                    []byte // nil: not yet
}

const regionSize = 32

func parseRegion(b []byte) region {
	return region{
		guest: binary.LittleEndian.Uint64(b), size: binary.LittleEndian.Uint64(b[8:]), user: binary.LittleEndian.Uint64(b[16:]),
		offset: binary.LittleEndian.Uint64(b[24:]), file: -1,
	}
}

func (r *region) same(o region) bool {
	return r.guest == o.guest && r.size == o.size && r.user == o.user
}

// close gives up a region's file and mapping.
func (r *region) close() {
	if r.mapped != nil {
		_ = unix.Munmap(r.mapped)
		r.mapped = nil
	}
	_ = unix.Close(r.file)
}

// memory is what the guest shares.
type memory []*region

// note follows a message that changes the memory, and keeps its files.
func (m *memory) note(msg *message) {
	switch body := msg.body; msg.request {
	case setMemTable:
		if len(body) < 8 {
			return
		}
		m.close()
		for list := body[8:]; len(list) >= regionSize && len(msg.files) > 0; list = list[regionSize:] {
			m.add(list, msg)
		}
	case addMemReg:
		if len(body) >= 8+regionSize && len(msg.files) > 0 {
			m.add(body[8:], msg)
		}
	case remMemReg:
		if len(body) < 8+regionSize {
			return
		}
		gone := parseRegion(body[8:])
		*m = slices.DeleteFunc(*m, func(r *region) bool {
			if r.same(gone) {
				r.close()
				return true
			}
			return false
		})
	}
}

func (m *memory) add(b []byte, msg *message) {
	r := parseRegion(b)
	fd, err := unix.FcntlInt(uintptr(msg.files[0]), unix.F_DUPFD_CLOEXEC, 0) // the message's own are still to be passed on
	if err != nil {
		return // what lies in it cannot be answered
	}
	msg.files = append(msg.files[1:], msg.files[0]) // the next region's
	r.file = fd
	*m = append(*m, &r)
}

func (m *memory) close() {
	for _, r := range *m {
		r.close()
	}
	*m = nil
}

// open maps what is not mapped yet.
func (m memory) open() error {
	for _, r := range m {
		if r.mapped != nil {
			continue
		}
		length := r.size + r.offset
		if length < r.size || length > 1<<46 {
			return fmt.Errorf("a memory of %d bytes", length)
		}
		b, err := unix.Mmap(r.file, 0, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED) //nolint:gosec // bounded above
		if err != nil {
			return fmt.Errorf("map the guest's memory: %w", err)
		}
		r.mapped = b
	}
	return nil
}

// at are n bytes of memory; where tells the start of a region.
func (m memory) at(address, n uint64, where func(*region) uint64) []byte {
	for _, r := range m {
		start := where(r)
		if r.mapped == nil || address < start || address-start >= r.size || n > r.size-(address-start) {
			continue
		}
		from := r.offset + address - start
		return r.mapped[from : from+n : from+n]
	}
	return nil
}

// user and guest are n bytes at an address of the VM's process, and of the guest's; nil: they are not there.
func (m memory) user(address, n uint64) []byte {
	return m.at(address, n, func(r *region) uint64 { return r.user })
}

func (m memory) guest(address, n uint64) []byte {
	return m.at(address, n, func(r *region) uint64 { return r.guest })
}
