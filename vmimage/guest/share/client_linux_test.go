// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// within fails the test when something does not end.
func within(t *testing.T, what string, run func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

func writing(t *testing.T) (*mount, *node) {
	t.Helper()
	m := &mount{client: newClient(), table: newTable(wire.Attr{Ident: 1, Mode: wire.TypeFolder | 0o755})}
	n := &node{id: 2, ident: 2, lookups: 1, attr: wire.Attr{Ident: 2, Mode: wire.TypeRegular | 0o644}}
	m.table.nodes[2], m.table.idents[2] = n, n
	return m, n
}

// TestWritesWithoutHost: what was written while the host is gone for good fails, and holds nobody up.
func TestWritesWithoutHost(t *testing.T) {
	m, n := writing(t)
	m.client.dead = true
	within(t, "a write without a host", func() {
		if e := m.write(n, &wire.Request{Data: []byte("lost")}); e != 0 {
			t.Errorf("write: error %d", e)
		}
		if e := m.settle(n, true); e != wire.EIO {
			t.Errorf("close: error %d, want %d", e, wire.EIO)
		}
	})
}

// TestNothingWaitsAfterTheEnd: whoever asks after the unmount, while there is still a connection that nobody reads from, is not left to wait.
func TestNothingWaitsAfterTheEnd(t *testing.T) {
	c := newClient()
	a, b := net.Pipe()
	defer b.Close()
	defer a.Close()
	c.attach(a, true)
	ended, end := context.WithCancel(t.Context())
	end()
	within(t, "the watch", func() { c.watch(ended) })
	within(t, "a request", func() {
		if _, e := c.do(nil, &wire.Request{Op: wire.OpGetattr}); e != wire.EIO {
			t.Errorf("error %d, want %d", e, wire.EIO)
		}
	})
}

// TestLostWritesWhileWriting: a new host that remembers nothing is taken even while somebody is about to write to a file whose last write is lost.
func TestLostWritesWhileWriting(t *testing.T) {
	m, n := writing(t)
	within(t, "a write", func() {
		if e := m.write(n, &wire.Request{Flags: wire.FlagAppend, Data: []byte("lost")}); e != 0 {
			t.Errorf("write: error %d", e)
		}
		n.pending.mu.Lock()
		m.sendWrite(n, &n.pending)
		n.pending.mu.Unlock()
	})
	m.client.mu.Lock()
	for _, k := range m.client.calls {
		k.sent = true
	}
	m.client.mu.Unlock()
	a, b := net.Pipe()
	defer b.Close()
	defer a.Close()
	n.pending.mu.Lock() // as who waits to send
	within(t, "a new connection", func() { m.client.attach(a, false) })
	n.pending.mu.Unlock()
	within(t, "a close", func() {
		if e := m.settle(n, true); e != wire.EIO {
			t.Errorf("close: error %d, want %d", e, wire.EIO)
		}
	})
}

// TestWritesThatWaited: writes to different places of a file that waited together do not end up behind each other.
func TestWritesThatWaited(t *testing.T) {
	m, n := writing(t)
	p := &n.pending
	p.cond = sync.NewCond(&p.mu)
	p.creating = true
	var work sync.WaitGroup
	for _, at := range []uint64{0, 1000, 2000} {
		work.Go(func() {
			if e := m.write(n, &wire.Request{Offset: at, Data: []byte("data")}); e != 0 {
				t.Errorf("write: error %d", e)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // so that they wait; where they do not, they are no trouble
	p.mu.Lock()
	p.creating = false
	p.cond.Broadcast()
	p.mu.Unlock()
	within(t, "writing", work.Wait)
	p.mu.Lock()
	m.sendWrite(n, p)
	p.mu.Unlock()
	var places []uint64
	m.client.mu.Lock()
	for _, k := range m.client.calls {
		r, err := wire.ParseRequest(k.frame[4:])
		if err != nil || string(r.Data) != "data" {
			t.Errorf("at %d %q was sent, %v", r.Offset, r.Data, err)
		}
		places = append(places, r.Offset)
	}
	m.client.mu.Unlock()
	slices.Sort(places)
	if want := []uint64{0, 1000, 2000}; !slices.Equal(places, want) {
		t.Errorf("sent at %v, want %v", places, want)
	}
}

// TestForgottenWrites: a file that the kernel forgets stays known until what was written to it is carried out, and no longer.
func TestForgottenWrites(t *testing.T) {
	m, n := writing(t)
	if e := m.write(n, &wire.Request{Data: []byte("data")}); e != 0 {
		t.Fatalf("write: error %d", e)
	}
	m.Forget(n.id, 1)
	known := func() bool {
		have, _, _ := m.node(n.id)
		return have == n
	}
	if !known() {
		t.Fatal("the file is forgotten before its writes are carried out")
	}
	var k *call
	within(t, "sending what was written", func() {
		for k == nil {
			m.client.mu.Lock()
			for _, k = range m.client.calls {
			}
			m.client.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	})
	if !known() {
		t.Error("the file is forgotten before the host has answered")
	}
	m.client.forget(k)
	k.res.Attr = n.attr
	k.finish()
	within(t, "forgetting", func() {
		for known() {
			time.Sleep(time.Millisecond)
		}
	})
}

// requests are those under way, in order.
func (c *client) requests(t *testing.T) (all []wire.Request) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		r, err := wire.ParseRequest(k.frame[4:])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b wire.Request) int { return int(a.ID) - int(b.ID) })
	return all
}

// TestMadeForAppending: what is to be at the end of a new file is not sent with its making: somebody may have made the file meanwhile.
func TestMadeForAppending(t *testing.T) {
	m, n := writing(t)
	p := &n.pending
	p.cond = sync.NewCond(&p.mu)
	p.used, p.create, p.in = true, &wire.Request{Op: wire.OpCreate, Name: "log", Flags: wire.FlagAhead}, place{m.table.root, "log"}
	wrote := make(chan uint16, 1)
	go func() { wrote <- m.write(n, &wire.Request{Flags: wire.FlagAppend, Data: []byte("line\n")}) }()
	within(t, "making the file", func() {
		for len(m.client.requests(t)) == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	if r := m.client.requests(t)[0]; r.Op != wire.OpCreate || len(r.Data) > 0 {
		t.Errorf("sent %+v", r)
	}
	m.client.mu.Lock()
	var k *call
	for _, k = range m.client.calls {
	}
	m.client.mu.Unlock()
	m.client.forget(k)
	k.res.Attr = wire.Attr{Ident: 7, Mode: wire.TypeRegular | 0o644, Nlink: 1}
	k.finish()
	within(t, "the write", func() {
		if e := <-wrote; e != 0 {
			t.Errorf("error %d", e)
		}
	})
	p.mu.Lock()
	m.sendWrite(n, p)
	p.mu.Unlock()
	if all := m.client.requests(t); len(all) != 1 || all[0].Op != wire.OpWrite || all[0].Flags&wire.FlagAppend == 0 || all[0].Ident != 7 {
		t.Errorf("sent %+v", all)
	}
}

// TestMadeAgain: a host that does not remember a request to make a file is told that another one may have carried it out.
func TestMadeAgain(t *testing.T) {
	c := newClient()
	sink := func() net.Conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		go func() {
			for buf := make([]byte, 4096); ; {
				if _, err := b.Read(buf); err != nil {
					return
				}
			}
		}()
		return a
	}
	c.attach(sink(), true)
	c.start([]*call{{then: func(*call) {}}}, []wire.Request{{Op: wire.OpCreate, Name: "f", Flags: wire.FlagAhead, Data: []byte("text")}})
	c.attach(sink(), true)
	if r := c.requests(t); len(r) != 1 || r[0].Flags != wire.FlagAhead {
		t.Errorf("a host that remembers it is sent %+v", r)
	}
	c.attach(sink(), false)
	if r := c.requests(t); len(r) != 1 || r[0].Flags != wire.FlagAhead|wire.FlagAgain || string(r[0].Data) != "text" {
		t.Errorf("one that does not is sent %+v", r)
	}
}
