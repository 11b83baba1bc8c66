// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The memory of the tests' guest: where its parts are in it, and where it is to the guest and to the VM's process.
const (
	guestAt, userAt   = 0x100000, 0x7f0000000000
	memorySize        = 1 << 16
	descsAt, haveAt   = 0, 0x1000
	usedAt            = 0x2000
	inAt, outAt       = 0x3000, 0x4000
	indirectAt, slots = 0x5000, 8
)

// patience bounds what takes no time.
const patience = time.Minute

// device is the side of the VM.
type device struct {
	t          *testing.T
	conn       *net.UnixConn
	memory     []byte
	kick, call int
}

func eventFD(t *testing.T) int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (d *device) tell(request, flags uint32, body []byte, files ...int) {
	d.t.Helper()
	if err := send(d.conn, message{request: request, flags: flagVersion | flags, body: body, files: files}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) hear(request uint32) []byte {
	d.t.Helper()
	_ = d.conn.SetReadDeadline(time.Now().Add(patience))
	m, err := receive(d.conn)
	if err != nil || m.request != request || m.flags != flagVersion|flagReply {
		d.t.Fatalf("answer to %d: %+v, %v", request, m, err)
	}
	return m.body
}

func words(list ...uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func longs(list ...uint64) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// server is a virtiofsd as the relay sees it.
type server struct{ conns chan *net.UnixConn }

func newServer(t *testing.T, path string) server {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := server{make(chan *net.UnixConn, 1)}
	go func() {
		if c, err := l.AcceptUnix(); err == nil {
			s.conns <- c
		}
	}()
	return s
}

// newDevice connects a device and sets it up, with one ring of requests.
func newDevice(t *testing.T) (d *device, back *net.UnixConn) {
	dir := t.TempDir()
	s := newServer(t, filepath.Join(dir, "d.sock"))
	relay, err := Listen(filepath.Join(dir, "s.sock"), filepath.Join(dir, "d.sock"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "s.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d = &device{t: t, conn: conn, kick: eventFD(t), call: eventFD(t)}
	t.Cleanup(func() { _ = conn.Close() })
	file, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	if err := unix.Ftruncate(file, memorySize); err != nil {
		t.Fatal(err)
	}
	if d.memory, err = unix.Mmap(file, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	back = <-s.conns
	t.Cleanup(func() { _ = back.Close() })
	reg := longs(guestAt, memorySize, userAt, 0)
	d.tell(addMemReg, flagNeedReply, append(longs(0), reg...), file)
	m := d.served(back)
	if len(m.files) != 1 {
		t.Fatalf("the server got %d files", len(m.files))
	}
	m.close()
	if err := send(back, m.reply(longs(0))); err != nil {
		t.Fatal(err)
	}
	d.hear(addMemReg)
	d.tell(setVringNum, 0, words(1, slots))
	d.tell(setVringAddr, 0, append(words(1, 0), longs(userAt+descsAt, userAt+usedAt, userAt+haveAt, 0)...))
	d.tell(setVringKick, 0, longs(1), d.kick)
	d.tell(setVringCall, 0, longs(1), d.call)
	for range 4 {
		m := d.served(back)
		m.close()
	}
	return d, back
}

// served is what the server gets.
func (d *device) served(back *net.UnixConn) message {
	d.t.Helper()
	_ = back.SetReadDeadline(time.Now().Add(patience))
	m, err := receive(back)
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

func (d *device) desc(at, address, size uint64, flags, next uint16) {
	b := d.memory[at:]
	binary.LittleEndian.PutUint64(b, address)
	binary.LittleEndian.PutUint32(b[8:], uint32(size))
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// ask puts a request into the ring, as the n-th.
func (d *device) ask(n uint16, op uint32, head uint16) {
	in := d.memory[inAt:]
	binary.LittleEndian.PutUint32(in, inHeader)
	binary.LittleEndian.PutUint32(in[4:], op)
	binary.LittleEndian.PutUint64(in[8:], uint64(n)+77)
	clear(d.memory[outAt : outAt+outHeader])
	binary.LittleEndian.PutUint16(d.memory[haveAt+4+2*(int(n)%slots):], head)
	binary.LittleEndian.PutUint16(d.memory[haveAt+2:], n+1)
	_, _ = unix.Write(d.kick, longs(1))
}

// answered waits for the answer to the n-th request.
func (d *device) answered(n uint16) (written uint32, failed int32, unique uint64) {
	d.t.Helper()
	for end := time.Now().Add(patience); index(d.memory[usedAt:]) != n+1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("request %d has no answer", n)
		}
	}
	entry := d.memory[usedAt+4+8*(int(n)%slots):]
	out := d.memory[outAt:]
	return binary.LittleEndian.Uint32(entry[4:]), int32(binary.LittleEndian.Uint32(out[4:])), binary.LittleEndian.Uint64(out[8:])
}

// TestTakesTheServersPlace: what the guest asked for before and after the end of the server fails, and what the VM waits for is answered.
func TestTakesTheServersPlace(t *testing.T) {
	d, back := newDevice(t)
	d.desc(descsAt, guestAt+inAt, inHeader, descNext, 1)
	d.desc(descsAt+descSize, guestAt+outAt, outHeader, descWrite, 0)
	d.desc(descsAt+2*descSize, guestAt+indirectAt, 2*descSize, descIndirect, 0)
	d.desc(indirectAt, guestAt+inAt, inHeader, descNext, 1)
	d.desc(indirectAt+descSize, guestAt+outAt, outHeader, descWrite, 0)
	d.desc(descsAt+3*descSize, guestAt+inAt, inHeader, 0, 0) // forget: nobody waits for an answer
	d.ask(0, 3, 0)
	d.tell(getQueueNum, 0, nil) // the server dies over it
	m := d.served(back)
	m.close()
	if index(d.memory[usedAt:]) != 0 {
		t.Error("the relay answers for a server that lives")
	}
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	d.hear(getQueueNum)
	if n, failed, unique := d.answered(0); n != outHeader || failed != -int32(unix.ENOTCONN) || unique != 77 {
		t.Errorf("the request under way: %d bytes, error %d, of request %d", n, failed, unique)
	}
	d.ask(1, 1, 2)
	if n, failed, unique := d.answered(1); n != outHeader || failed != -int32(unix.ENOTCONN) || unique != 78 {
		t.Errorf("an indirect request: %d bytes, error %d, of request %d", n, failed, unique)
	}
	d.ask(2, 2, 3)
	if n, _, _ := d.answered(2); n != 0 {
		t.Errorf("%d bytes for a request that wants no answer", n)
	}
	d.ask(3, opDestroy, 0)
	if n, failed, _ := d.answered(3); n != outHeader || failed != 0 {
		t.Errorf("the goodbye: %d bytes, error %d", n, failed)
	}
	if _, err := unix.Read(d.call, make([]byte, 8)); err != nil {
		t.Errorf("the guest was not told: %v", err)
	}
	d.tell(getVringBase, 0, words(1, 0))
	if got := d.hear(getVringBase); string(got) != string(words(1, 4)) {
		t.Errorf("the ring's end: % x", got)
	}
	d.ask(4, 1, 0)
	time.Sleep(3 * lookPause)
	if index(d.memory[usedAt:]) != 4 {
		t.Error("a ring that was stopped is answered")
	}
}

// TestHostileRing: descriptors that lead nowhere, or round in a circle, do no harm.
func TestHostileRing(t *testing.T) {
	d, back := newDevice(t)
	d.desc(descsAt, guestAt+memorySize-8, 1<<20, descNext, 1)
	d.desc(descsAt+descSize, ^uint64(0)-4, outHeader, descNext|descWrite, 0)
	d.desc(descsAt+2*descSize, guestAt+descsAt, slots*descSize, descIndirect, 0)
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
	for n, head := range []uint16{0, 2, 60000} {
		d.ask(uint16(n), 1, head)
		if written, _, _ := d.answered(uint16(n)); written != 0 {
			t.Errorf("request %d: %d bytes", n, written)
		}
	}
}

// TestNoServer: a device whose server cannot be reached is answered all the same.
func TestNoServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	relay, err := Listen(path, path+".none", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := &device{t: t, conn: conn}
	d.tell(getFeatures, 0, nil)
	if got := d.hear(getFeatures); len(got) != 8 {
		t.Errorf("features: % x", got)
	}
}

func FuzzRefuse(f *testing.F) {
	f.Add(make([]byte, 64), uint16(0))
	f.Add(append(longs(0, 1<<32|40), longs(0, 2<<32|16)...), uint16(1))
	f.Fuzz(func(_ *testing.T, descs []byte, head uint16) {
		m := memory{{guest: 0, size: 4096, file: -1, mapped: make([]byte, 4096)}}
		copy(m[0].mapped, descs)
		refuse(m, m[0].mapped[:256], head)
	})
}
