// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"sync"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// maxUnderway bounds the bytes of a connection's requests, and of their answers, that this process holds: several times what the kernel of a guest has under
	// way by itself.
	maxUnderway = 64 << 20
	// requestCost is what each request costs beside its data and its answer's: with maxUnderway, it bounds their number.
	requestCost = 16 << 10
	// listingCost is what a listing holds at a time.
	listingCost = 1 << 20
	// xattrCost is the longest extended attribute.
	xattrCost = 64 << 10
	// maxPolls bounds the requests that wait for events. A guest has one.
	maxPolls = 8
)

// cost is how many bytes a request and its answer take at most.
func cost(r *wire.Request) int {
	n := requestCost + len(r.Path) + len(r.Name) + len(r.Path2) + len(r.Name2) + len(r.Data)
	switch r.Op {
	case wire.OpRead:
		n += int(min(r.Size, wire.MaxData))
	case wire.OpReaddir:
		n += listingCost
	case wire.OpGetxattr, wire.OpListxattr:
		n += xattrCost
	}
	return n
}

// underway bounds what is held at a time. The zero value holds nothing.
type underway struct {
	mu    sync.Mutex
	freed *sync.Cond
	held  int
}

// take waits until there is room, of which there is always some for one.
func (u *underway) take(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.freed == nil {
		u.freed = sync.NewCond(&u.mu)
	}
	for u.held > 0 && u.held+n > maxUnderway {
		u.freed.Wait()
	}
	u.held += n
}

func (u *underway) give(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held -= n
	u.freed.Signal() // only who reads requests waits
}

// poll answers a request for events once there are some. Further ones than a guest has are refused: they would wait for as long.
func (c *connection) poll(r wire.Request) {
	if c.polls.Add(1) > maxPolls {
		c.polls.Add(-1)
		r.Op = wire.OpPing
		c.under.take(cost(&r))
		c.work.Go(func() {
			defer c.under.give(cost(&r))
			c.send(&wire.Response{ID: r.ID, Errno: wire.EIO})
		})
		return
	}
	c.work.Go(func() {
		defer c.polls.Add(-1)
		res := c.server.events(c.ctx, &r)
		c.send(&res)
	})
}
