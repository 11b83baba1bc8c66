// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Relay is a socket for a VM's device. Close it when the VM has let the device go, or is off.
type Relay struct {
	listener *net.UnixListener
	server   string
	log      *slog.Logger
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conn   *net.UnixConn // the VM's
}

// Listen makes a socket at path for one VM's device, whose server is at another socket.
func Listen(path, server string, log *slog.Logger) (*Relay, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make a socket for a share: %w", err)
	}
	r := &Relay{listener: l, server: server, log: log}
	r.work.Go(r.accept)
	return r, nil
}

// Close ends it all, and waits for that.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	if r.conn != nil {
		_ = r.conn.Close()
	}
	r.mu.Unlock()
	err := r.listener.Close()
	r.work.Wait()
	return err
}

func (r *Relay) accept() {
	for {
		conn, err := r.listener.AcceptUnix()
		if err != nil {
			return
		}
		r.mu.Lock()
		ended := r.closed
		r.conn = conn
		r.mu.Unlock()
		if ended {
			_ = conn.Close()
			return
		}
		r.serve(conn)
	}
}

// serve serves a VM's connection to its end.
func (r *Relay) serve(front *net.UnixConn) {
	s := &session{front: front, log: r.log, rings: map[uint32]*ring{}, known: map[uint32][]byte{}, done: make(chan struct{})}
	defer s.end()
	back, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.server, Net: "unix"})
	if err != nil {
		s.takeOver()
	} else {
		s.back = back
		s.work.Go(s.fromServer)
	}
	for {
		m, err := receive(front)
		if err != nil {
			return
		}
		s.fromVM(&m)
		m.close()
	}
}

// session is one connection of a VM's.
type session struct {
	front, back *net.UnixConn
	log         *slog.Logger
	done        chan struct{}
	work        sync.WaitGroup

	mu     sync.Mutex
	alone  bool     // the server is gone
	asked  *message // what the VM waits for an answer to
	known  map[uint32][]byte
	memory memory
	rings  map[uint32]*ring
}

// fromServer passes on what the server says, and takes its place when it ends.
func (s *session) fromServer() {
	for {
		m, err := receive(s.back)
		if err != nil {
			s.takeOver()
			return
		}
		s.mu.Lock()
		if s.asked != nil && s.asked.request == m.request {
			s.asked = nil
		}
		s.known[m.request] = m.body
		err = send(s.front, m)
		s.mu.Unlock()
		m.close()
		if err != nil {
			return // the VM is gone
		}
	}
}

// fromVM notes what the VM says, and passes it on or answers it.
func (s *session) fromVM(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(m)
	if !s.alone {
		if m.wantsReply() {
			s.asked = &message{request: m.request, flags: m.flags, body: m.body}
		}
		if send(s.back, *m) == nil {
			return // an end of the server's shows where it is read from
		}
		if s.asked != nil {
			return // takeOver answers it
		}
	}
	s.reply(*m)
}

// note keeps what is needed to take the server's place.
func (s *session) note(m *message) {
	switch m.request {
	case setMemTable, addMemReg, remMemReg:
		s.memory.note(m)
		if s.alone {
			s.open()
		}
		return
	}
	if len(m.body) < 8 {
		return
	}
	first, second := binary.LittleEndian.Uint32(m.body), binary.LittleEndian.Uint32(m.body[4:])
	switch m.request {
	case setVringNum:
		s.ring(first).num = uint64(second)
	case setVringAddr:
		if len(m.body) >= 32 {
			r := s.ring(first)
			r.descs, r.used, r.have = binary.LittleEndian.Uint64(m.body[8:]), binary.LittleEndian.Uint64(m.body[16:]), binary.LittleEndian.Uint64(m.body[24:])
		}
	case setVringKick:
		r := s.ring(first & 0xff)
		r.stopped, r.taken = false, false
		keep(&r.kick, m)
	case setVringCall:
		keep(&s.ring(first&0xff).call, m)
	case getVringBase:
		s.ring(first).stopped = true
	}
}

// keep replaces a file by a copy of the message's.
func keep(old *int, m *message) {
	if *old >= 0 {
		_ = unix.Close(*old)
	}
	*old = -1
	if len(m.files) > 0 {
		if fd, err := unix.FcntlInt(uintptr(m.files[0]), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			*old = fd
		}
	}
}

func (s *session) ring(i uint32) *ring {
	if s.rings[i] == nil {
		s.rings[i] = &ring{kick: -1, call: -1}
	}
	return s.rings[i]
}

// reply answers the VM in the server's place.
func (s *session) reply(m message) {
	if !m.wantsReply() {
		return
	}
	body := make([]byte, 8) // done
	switch m.request {
	case getVringBase:
		r := s.ring(binary.LittleEndian.Uint32(append(m.body, 0, 0, 0, 0)))
		copy(body, m.body)
		binary.LittleEndian.PutUint32(body[4:], uint32(s.base(r)))
	case getFeatures, getProtocolFeatures, getQueueNum, getMaxMemSlots, getConfig, getStatus:
		if known := s.known[m.request]; known != nil {
			body = known
		}
	}
	_ = send(s.front, m.reply(body)) // a VM that is gone ends the reading
}

// base is where a ring's next request is.
func (s *session) base(r *ring) uint16 {
	if r.taken {
		return r.next
	}
	if v, ok := r.views(s.memory); ok {
		return index(v.used)
	}
	return 0
}

func (s *session) open() {
	if err := s.memory.open(); err != nil {
		s.log.Warn("take the place of a share's server", "error", err)
	}
}

// lookPause is the longest time between looks at the rings: the guest's calls may have gone to the server that is dead.
const lookPause = 50 * time.Millisecond

// takeOver takes the server's place.
func (s *session) takeOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done: // the VM went first, and its memory is for others now
		return
	default:
	}
	s.alone = true
	s.open()
	if s.asked != nil {
		m := *s.asked
		s.asked = nil
		s.reply(m)
	}
	s.work.Go(s.answer)
}

// answer answers the guest's requests until the VM has gone.
func (s *session) answer() {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for {
		s.mu.Lock()
		for _, r := range s.rings {
			r.answer(s.memory)
		}
		s.mu.Unlock()
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
	}
}

// end gives up all that a session has.
func (s *session) end() {
	s.mu.Lock()
	close(s.done)
	s.mu.Unlock()
	_ = s.front.Close()
	if s.back != nil {
		_ = s.back.Close()
	}
	s.work.Wait()
	s.memory.close()
	for _, r := range s.rings {
		for _, fd := range []int{r.kick, r.call} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
}
