// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// lostAfter is how long requests wait for a connection before they fail, and stuckAfter for an answer over one.
	lostAfter  = 60 * time.Second
	stuckAfter = 15 * time.Minute
	// lookAfter is how often that is looked at.
	lookAfter = 5 * time.Second
	// greetWait bounds the greeting of a connection.
	greetWait = 30 * time.Second
	// holdWrite is how long what nobody waits for may wait for more to be sent with it: a small write, or a request without an answer.
	holdWrite  = 20 * time.Millisecond
	readBuffer = 256 << 10
)

// call is a request under way.
type call struct {
	id    uint64
	op    wire.Op
	flags uint32
	frame []byte
	// request is what the frame says, of a file that is to be made.
	request *wire.Request
	since   time.Time
	res     wire.Response
	// into takes the data of a read without a further copy; n is how much came.
	into []byte
	n    int
	// each is called for every response of several, on the receiving goroutine; its data is valid during the call.
	each func(*wire.Response)
	// then is called instead of waking a waiter, on the receiving goroutine or another one that holds no lock.
	then func(*call)
	done chan struct{}
	sent bool
	// guessed: the kernel was told attributes that the host had not given yet.
	guessed bool
}

// client carries requests to the host over one connection after another.
type client struct {
	session [16]byte
	// pushed is called with the host's own words, on the receiving goroutine.
	pushed func(kind uint64, data []byte)
	// resumed is called after each connection but the first; known: nothing was missed.
	resumed func(known bool)

	send sync.Mutex // held while a frame is written
	mu   sync.Mutex
	conn net.Conn
	// calls are those under way, by their number.
	calls map[uint64]*call
	next  uint64
	lost  time.Time // since when there is no connection
	dead  bool      // requests fail at once, until there is a connection
	ended bool      // requests fail at once, from now on
	met   bool      // there was a connection
	held  bool      // the host is about to go, until there is another connection
	tells []byte    // requests without an answer that were not sent yet
	seen  uint64    // pushes
	// epoch counts what the host said of its own: an answer that crossed with one may be out of date.
	epoch atomic.Uint64
	now   func() time.Time
}

func newClient() *client {
	c := &client{calls: map[uint64]*call{}, next: 1, now: time.Now, lost: time.Now()}
	_, _ = rand.Read(c.session[:]) // never fails
	return c
}

// serve uses a connection until it ends, in place of the one before.
func (c *client) serve(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	in := bufio.NewReaderSize(conn, readBuffer)
	c.mu.Lock()
	old, seen := c.conn, c.seen
	c.mu.Unlock()
	if old != nil {
		old.Close() // its host is gone, or it would not have come again
	}
	known, err := c.greet(conn, in, seen)
	if err != nil {
		return fmt.Errorf("greet the host: %w", err)
	}
	c.attach(conn, known)
	err = c.receive(in)
	c.detach(conn)
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *client) greet(conn net.Conn, in io.Reader, seen uint64) (known bool, err error) {
	_ = conn.SetDeadline(time.Now().Add(greetWait)) // a connection without deadlines is a test's
	h := wire.Hello{Version: wire.Version, Session: c.session, Seen: seen}
	if _, err := conn.Write(h.Append(nil)); err != nil {
		return false, err
	}
	answer := make([]byte, wire.WelcomeSize)
	if _, err := io.ReadFull(in, answer); err != nil {
		return false, err
	}
	w, err := wire.ParseWelcome(answer)
	if err != nil {
		return false, err
	}
	if w.Version != wire.Version {
		return false, fmt.Errorf("the host speaks version %d of the share's protocol and this machine %d: upgrade the older one", w.Version, wire.Version)
	}
	_ = conn.SetDeadline(time.Time{})
	return w.Known, nil
}

// attach makes a connection the one in use and sends again what was under way on the one before.
func (c *client) attach(conn net.Conn, known bool) {
	c.send.Lock()
	defer c.send.Unlock()
	c.mu.Lock()
	c.conn, c.dead, c.held, c.tells = conn, false, false, nil
	again := make([]*call, 0, len(c.calls))
	var lost []*call
	for _, k := range c.calls {
		if k.sent && !known && !k.repeatable() {
			lost = append(lost, k)
			delete(c.calls, k.id)
			continue
		}
		if k.sent && !known && k.request != nil { // the host may have made it, and somebody may have changed it since
			k.request.Flags |= wire.FlagAgain
			k.frame = k.request.Append(nil)
		}
		again = append(again, k)
	}
	if !known {
		c.seen = 0
	}
	first := !c.met
	c.met = true
	slices.SortFunc(again, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	for _, k := range again {
		k.sent, k.since = true, c.now()
	}
	c.mu.Unlock()
	failSoon(lost)
	if !first && c.resumed != nil {
		c.resumed(known)
	}
	for _, k := range again {
		if _, err := conn.Write(k.frame); err != nil {
			return // receive hears of it, too
		}
	}
}

// repeatable says that a host which does not remember a request may carry it out once more.
func (k *call) repeatable() bool {
	switch k.op {
	case wire.OpWrite:
		return k.flags&wire.FlagAppend == 0
	case wire.OpCreate, wire.OpUnlink:
		return k.flags&(wire.FlagAhead|wire.FlagExclusive) == wire.FlagAhead // a file that is there is left as it is; what is removed is this file or none
	case wire.OpSetattr:
		return true
	}
	return !k.op.Mutates()
}

func (c *client) detach(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn, c.lost = nil, c.now()
	}
}

// fail ends a call whose outcome nobody knows.
func (k *call) fail() {
	k.res = wire.Response{ID: k.id, Errno: wire.EIO}
	k.finish()
}

// failSoon ends calls on a goroutine of its own: what they do then takes locks that callers hold, or wait for with what the caller holds.
func failSoon(calls []*call) {
	if len(calls) == 0 {
		return
	}
	go func() {
		for _, k := range calls {
			k.fail()
		}
	}()
}

func (k *call) finish() {
	if k.then != nil {
		k.then(k)
		return
	}
	close(k.done)
}

// watch lets requests fail that have waited for too long, until ctx ends; then all fail.
func (c *client) watch(ctx context.Context) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.ended = true // nobody looks after those that come now
			c.mu.Unlock()
			c.expire(func(*call) bool { return true }, true)
			return
		case <-tick.C:
		}
		c.mu.Lock()
		gone := c.conn == nil && c.now().Sub(c.lost) > lostAfter
		c.mu.Unlock()
		c.expire(func(k *call) bool { return gone || c.now().Sub(k.since) > stuckAfter }, gone)
	}
}

func (c *client) expire(old func(*call) bool, dead bool) {
	c.mu.Lock()
	if c.conn == nil {
		c.dead = c.dead || dead
	}
	var out []*call
	for id, k := range c.calls {
		if old(k) {
			delete(c.calls, id)
			out = append(out, k)
		}
	}
	c.mu.Unlock()
	for _, k := range out {
		k.fail()
	}
}

// start sends requests without waiting for their answers. Their frames go out together.
func (c *client) start(calls []*call, requests []wire.Request) {
	c.send.Lock()
	defer c.send.Unlock()
	c.mu.Lock()
	now := c.now()
	size := len(c.tells)
	for i, k := range calls {
		r := &requests[i]
		r.ID = c.next
		c.next++
		k.id, k.op, k.flags, k.since = r.ID, r.Op, r.Flags, now
		k.frame = r.Append(make([]byte, 0, 160+len(r.Path)+len(r.Name)+len(r.Path2)+len(r.Name2)+len(r.Data)))
		size += len(k.frame)
		if r.Op == wire.OpCreate {
			k.request = r
		}
	}
	if c.dead || c.ended {
		c.mu.Unlock()
		failSoon(calls)
		return
	}
	conn := c.conn
	for _, k := range calls {
		k.sent = conn != nil
		c.calls[k.id] = k
	}
	tells := c.tells
	c.tells = nil
	c.mu.Unlock()
	if conn == nil {
		return
	}
	frame := calls[0].frame
	if len(calls) > 1 || len(tells) > 0 {
		frame = append(make([]byte, 0, size), tells...)
		for _, k := range calls {
			frame = append(frame, k.frame...)
		}
	}
	_, _ = conn.Write(frame) // what did not arrive is sent again over the next connection
}

// tell sends a request that has no answer, before the next one that has, or soon; nobody minds if it is lost.
func (c *client) tell(r *wire.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.ID = c.next
	c.next++
	if c.conn == nil {
		return
	}
	if len(c.tells) == 0 {
		time.AfterFunc(holdWrite, c.sendTells)
	}
	c.tells = r.Append(c.tells)
}

// sendTells sends what is held back of such requests.
func (c *client) sendTells() {
	c.send.Lock()
	defer c.send.Unlock()
	c.mu.Lock()
	conn, frames := c.conn, c.tells
	c.tells = nil
	c.mu.Unlock()
	if conn != nil && len(frames) > 0 {
		_, _ = conn.Write(frames)
	}
}

// hold says that the host is about to go.
func (c *client) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// listening says that the host is there, and not about to go.
func (c *client) listening() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil && !c.held
}

// disconnected says that there is nobody to answer now.
func (c *client) disconnected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn == nil
}

// do sends a request and waits for its answer. When the caller is interrupted, that is heard only while there is no connection: a program whose file operations
// fail with EINTR at any signal would not survive, and one that is killed gets away as soon as the host has answered.
func (c *client) do(cancel <-chan struct{}, r *wire.Request) (*call, uint16) {
	return c.wait(cancel, r, &call{done: make(chan struct{})})
}

// errInterrupted is EINTR.
const errInterrupted = 4

func (c *client) wait(cancel <-chan struct{}, r *wire.Request, k *call) (*call, uint16) {
	c.start([]*call{k}, []wire.Request{*r})
	for {
		select {
		case <-k.done:
			return k, k.res.Errno
		case <-cancel:
		}
		if c.disconnected() && !k.op.Mutates() {
			c.mu.Lock()
			delete(c.calls, k.id)
			c.mu.Unlock()
			return k, errInterrupted
		}
		cancel = nil
	}
}

// headSize is the length of what every response begins with: its length, number, error, bits and value.
const headSize = 4 + 8 + 2 + 1 + 8

// receive hands answers to who waits for them until the connection ends.
func (c *client) receive(in *bufio.Reader) error {
	var buf []byte
	for {
		head, err := in.Peek(headSize)
		if err != nil {
			return err
		}
		n, id := int(binary.LittleEndian.Uint32(head)), binary.LittleEndian.Uint64(head[4:])
		if n < headSize-4 || n > wire.MaxFrame {
			return wire.ErrMalformed
		}
		plain := binary.LittleEndian.Uint16(head[12:]) == 0 && head[14] == 0
		c.mu.Lock()
		k := c.calls[id]
		c.mu.Unlock()
		if plain && k != nil && k.into != nil && n-(headSize-4) <= len(k.into) {
			if err := c.fill(in, k, n-(headSize-4)); err != nil {
				return err
			}
			continue
		}
		if n+4 <= in.Size() {
			body, err := in.Peek(n + 4)
			if err != nil {
				return err
			}
			err = c.take(k, body[4:])
			_, _ = in.Discard(n + 4) // it is there
			if err != nil {
				return err
			}
			continue
		}
		if buf, err = wire.ReadFrame(in, buf); err != nil {
			return err
		}
		if err = c.take(k, buf); err != nil {
			return err
		}
	}
}

// fill reads an answer's data to where it is wanted.
func (c *client) fill(in *bufio.Reader, k *call, n int) error {
	_, _ = in.Discard(headSize) // it is there
	if _, err := io.ReadFull(in, k.into[:n]); err != nil {
		return err
	}
	k.n = n
	c.forget(k)
	k.res = wire.Response{ID: k.id}
	k.finish()
	return nil
}

func (c *client) forget(k *call) {
	c.mu.Lock()
	delete(c.calls, k.id)
	c.mu.Unlock()
}

// take handles one response, whose data is only lent.
func (c *client) take(k *call, body []byte) error {
	res, err := wire.ParseResponse(body)
	if err != nil {
		return err
	}
	if res.ID == 0 {
		c.mu.Lock()
		c.seen++
		c.mu.Unlock()
		c.epoch.Add(1)
		c.pushed(res.Value, res.Data)
		return nil
	}
	if k == nil {
		return nil // nobody waits any more
	}
	if k.op == wire.OpEvents {
		c.epoch.Add(1)
	}
	if k.each != nil && res.Errno == 0 {
		k.each(&res)
	}
	if res.More {
		return nil
	}
	c.forget(k)
	if k.each == nil {
		res.Data = slices.Clone(res.Data)
	} else {
		res.Data = nil
	}
	if k.into != nil {
		k.n = copy(k.into, res.Data)
	}
	k.res = res
	k.finish()
	return nil
}
