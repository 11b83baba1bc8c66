// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is a queue of requests: a split virtqueue (virtio 1.1, 2.6).
type ring struct {
	num               uint64
	descs, used, have uint64 // addresses of the VM's process: descriptors, answers, requests
	kick, call        int    // -1: none
	stopped           bool
	next              uint16 // the request to answer next
	taken             bool   // next is known
}

// Flags of a descriptor.
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	descSize     = 16
)

// FUSE's headers (linux/fuse.h), and requests whose success costs nothing or that have no answer.
const (
	inHeader   = 40
	outHeader  = 16
	opDestroy  = 38
	maxSegment = 1 << 16
)

// views are the parts of a ring in memory; ok is false where they are not there.
type views struct {
	descs, have, used []byte
	num               uint64
}

func (r *ring) views(m memory) (v views, ok bool) {
	if r.num == 0 || r.num > 1<<15 || r.used%4 != 0 || r.have%4 != 0 {
		return v, false
	}
	v = views{descs: m.user(r.descs, r.num*descSize), have: m.user(r.have, 6+2*r.num), used: m.user(r.used, 6+8*r.num), num: r.num}
	return v, v.descs != nil && v.have != nil && v.used != nil
}

// word is the first four bytes of a ring: flags and index, which the other side reads and writes at the same time.
func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }

func index(b []byte) uint16 { return uint16(atomic.LoadUint32(word(b)) >> 16) } //nolint:gosec // the upper half is it

// answer answers all requests of a ring with an error, and tells the guest.
func (r *ring) answer(m memory) {
	v, ok := r.views(m)
	if !ok || r.stopped || r.kick < 0 {
		return
	}
	if !r.taken { // the program answered in order
		r.next, r.taken = index(v.used), true
	}
	told := false
	for {
		for have := index(v.have); r.next != have; r.next++ {
			slot := uint64(r.next) % v.num
			head := binary.LittleEndian.Uint16(v.have[4+2*slot:])
			n := refuse(m, v.descs, head)
			at := index(v.used)
			entry := v.used[4+8*(uint64(at)%v.num):]
			binary.LittleEndian.PutUint32(entry, uint32(head))
			binary.LittleEndian.PutUint32(entry[4:], n)
			atomic.StoreUint32(word(v.used), uint32(at+1)<<16) // no flags: the guest is to tell of the next one
			told = true
		}
		binary.LittleEndian.PutUint16(v.used[4+8*v.num:], r.next) // where it counts for when to tell
		if index(v.have) == r.next {
			break
		}
	}
	if told && r.call >= 0 {
		_, _ = unix.Write(r.call, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // a counter that is full tells as well
	}
}

// refuse answers the request that begins at a descriptor, and returns how many bytes it wrote.
func refuse(m memory, descs []byte, head uint16) uint32 {
	var in, out []byte
	table, i := descs, uint64(head)
	for steps := 0; steps < 1<<15 && (i+1)*descSize <= uint64(len(table)); steps++ {
		d := table[i*descSize:]
		address, size := binary.LittleEndian.Uint64(d), uint64(binary.LittleEndian.Uint32(d[8:]))
		flags, next := binary.LittleEndian.Uint16(d[12:]), uint64(binary.LittleEndian.Uint16(d[14:]))
		switch {
		case flags&descIndirect != 0:
			if table = m.guest(address, size); table == nil || size > maxSegment*descSize {
				return 0
			}
			i = 0
			continue
		case flags&descWrite != 0 && out == nil && size >= outHeader:
			out = m.guest(address, outHeader)
		case flags&descWrite == 0 && in == nil && size >= inHeader:
			in = m.guest(address, inHeader)
		}
		if flags&descNext == 0 {
			break
		}
		i = next
	}
	if in == nil || out == nil {
		return 0
	}
	failed := -int32(unix.ENOTCONN)
	if binary.LittleEndian.Uint32(in[4:]) == opDestroy {
		failed = 0
	}
	binary.LittleEndian.PutUint32(out, outHeader)
	binary.LittleEndian.PutUint32(out[4:], uint32(failed)) //nolint:gosec // its bits are meant
	copy(out[8:16], in[8:16])                              // which request it was
	return outHeader
}
