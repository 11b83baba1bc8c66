// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Watcher learns which folders the guest knows, so that it can be told of their changes. Paths are relative to the share, "" is the share itself. Its methods are
// called often and from many goroutines.
type Watcher interface {
	// Add watches a folder, before it is looked at; false: its changes cannot be watched.
	Add(path string) bool
	// Forget says that the guest no longer knows a folder.
	Forget(path string)
}

// Options say what to serve.
type Options struct {
	// Folder is an absolute path.
	Folder   string
	ReadOnly bool
	// State is a file for owners and modes of files that cannot keep them themselves; "": they are forgotten with the Server.
	State string
	// Watcher may be nil: what the guest was told holds for a moment only.
	Watcher Watcher
	// Journal may be nil. It is told of each change of the guest's, before and after, so that it is not taken for one of the host's.
	Journal Journal
	// Events may be nil: the guest is told of no changes.
	Events Events
	Logger *slog.Logger
}

// Journal tells changes of the guest's from those of the host's.
type Journal interface {
	// Begin is called before an operation at a path, and a second one for renames and links. The function it returns is called after the operation.
	Begin(op wire.Op, path, to string) (done func(err error, now wire.Attr))
}

// Server serves one folder. It is safe for concurrent use.
type Server struct {
	o    Options
	tree *tree
	feed *feed // nil without events
	log  *slog.Logger

	mu       sync.Mutex
	sessions map[[16]byte]*session
}

// New opens the folder.
func New(o Options) (*Server, error) {
	t, err := openTree(o.Folder, o.State)
	if err != nil {
		return nil, fmt.Errorf("share %q: %w", o.Folder, err)
	}
	t.watcher, t.readOnly = o.Watcher, o.ReadOnly
	s := &Server{o: o, tree: t, log: o.Logger, sessions: map[[16]byte]*session{}}
	if o.Events != nil {
		s.feed = newFeed(o.Events)
	}
	return s, nil
}

// Close forgets all sessions and closes the folder. Connections must have ended.
func (s *Server) Close() error { return s.tree.close() }

// KeepsOwners says that owners and permissions are the host's own, for the guest's kernel to enforce.
func (s *Server) KeepsOwners() bool { return s.tree.owners }

// greetWait bounds the greeting.
const greetWait = 30 * time.Second

// errVersion says that the guest speaks another protocol.
var errVersion = errors.New("the machine's image speaks another version of the share's protocol: upgrade the machine, or dev")

// connection is one transport of a session.
type connection struct {
	ctx     context.Context // done when it ends
	server  *Server
	session *session
	conn    net.Conn
	mu      sync.Mutex
	writes  [writers]chan wire.Request
	under   underway
	busy    chan struct{}
	polls   atomic.Int32 // requests that wait for events
	work    sync.WaitGroup
}

const (
	// writers carry out writes; those to one file are one writer's, in order.
	writers = 8
	// maxBusy bounds requests that are being carried out, and writeQueue the writes that wait for one writer.
	maxBusy    = 128
	writeQueue = 64
	readBuffer = 256 << 10
)

// Serve answers requests on a connection until it ends or ctx does, and closes it. It returns nil when the other side closed it.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in := bufio.NewReaderSize(conn, readBuffer)
	ses, seen, err := s.greet(conn, in)
	if err != nil {
		return fmt.Errorf("greet the machine: %w", err)
	}
	live, end := context.WithCancel(ctx)
	c := &connection{ctx: live, server: s, session: ses, conn: conn, busy: make(chan struct{}, maxBusy)}
	ses.attach(c, seen)
	defer ses.detach(c)
	defer c.work.Wait()
	defer end()
	for i := range c.writes {
		queue := make(chan wire.Request, writeQueue)
		c.writes[i] = queue
		defer close(queue)
		c.work.Go(func() { c.write(queue) })
	}
	ahead := make(chan wire.Request, aheadQueue)
	defer close(ahead)
	c.work.Go(func() { c.doAhead(ahead) })
	err = c.receive(in, ahead)
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// greet agrees on a version and finds the session.
func (s *Server) greet(conn net.Conn, in io.Reader) (ses *session, seen uint64, err error) {
	_ = conn.SetDeadline(time.Now().Add(greetWait)) // a connection without deadlines is a test's
	hello := make([]byte, wire.HelloSize)
	if _, err := io.ReadFull(in, hello); err != nil {
		return nil, 0, err
	}
	h, err := wire.ParseHello(hello)
	if err != nil {
		return nil, 0, err
	}
	root, err := s.tree.rootAttr()
	if err != nil {
		return nil, 0, err
	}
	ses, known := s.session(h.Session)
	w := wire.Welcome{Version: wire.Version, Known: known, Root: root}
	if _, err := conn.Write(w.Append(nil)); err != nil {
		return nil, 0, err
	}
	if h.Version != wire.Version {
		return nil, 0, errVersion
	}
	_ = conn.SetDeadline(time.Time{})
	return ses, h.Seen, nil
}

// receive reads requests until the connection ends.
func (c *connection) receive(in io.Reader, ahead chan<- wire.Request) error {
	for {
		// A frame of its own: requests live on in other goroutines.
		body, err := wire.ReadFrame(in, nil)
		if err != nil {
			return err
		}
		r, err := wire.ParseRequest(body)
		if err != nil {
			return err
		}
		if r.Op == wire.OpEvents {
			c.poll(r)
			continue
		}
		if r.Op != wire.OpForget {
			c.under.take(cost(&r)) // a guest that does not take its answers is not listened to
		}
		switch {
		case isAhead(&r):
			ahead <- r
		case r.Op == wire.OpWrite:
			c.writes[r.Ident%writers] <- r
		case r.Op == wire.OpForget:
			c.server.tree.forget(&r)
		default:
			c.work.Go(func() {
				defer c.under.give(cost(&r))
				c.answer(&r)
			})
		}
	}
}

// write carries writes out. A file that the next one is for, too, stays open meanwhile: closing it may take long, over a network say.
func (c *connection) write(queue <-chan wire.Request) {
	expected := false
	for r, ok := <-queue; ok; {
		var next wire.Request
		more := false
		select {
		case next, more = <-queue:
		default:
		}
		follows := more && next.Ident == r.Ident
		if follows {
			c.server.tree.files.expect(r.Ident)
		}
		frame := c.outcome(&r)
		if expected {
			c.server.tree.files.arrived(r.Ident)
		}
		c.sendFrame(frame)
		c.under.give(cost(&r))
		if expected = follows; more {
			r = next
			continue
		}
		r, ok = <-queue
	}
}

// answer carries a request out and sends what came of it; a connection that is gone ends receive.
func (c *connection) answer(r *wire.Request) {
	if r.Op == wire.OpReaddir {
		c.list(r)
		return
	}
	var frame []byte
	c.busy <- struct{}{}
	if r.Op.Mutates() {
		frame = c.outcome(r)
	} else {
		res := c.server.do(r)
		frame = res.Append(make([]byte, 0, 4+32+2*wire.AttrSize+len(res.Data)))
	}
	<-c.busy // whoever waits for the guest to take an answer keeps nobody else from working
	c.sendFrame(frame)
}

// list answers a request for a folder's contents.
func (c *connection) list(r *wire.Request) {
	defer func() {
		if p := recover(); p != nil {
			c.server.log.Error("a request of a share failed", "op", r.Op, "panic", p)
			c.send(&wire.Response{ID: r.ID, Errno: wire.EIO})
		}
	}()
	c.server.tree.readdir(r, c.send)
}

// outcome carries a request out that changes something, unless that was done before, and gives the answer.
func (c *connection) outcome(r *wire.Request) []byte {
	return c.session.once(r.ID, func() []byte {
		res := c.server.do(r)
		return res.Append(nil)
	})
}

func (c *connection) send(r *wire.Response) {
	c.sendFrame(r.Append(make([]byte, 0, 4+32+2*wire.AttrSize+len(r.Data))))
}

func (c *connection) sendFrame(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.conn.Write(frame) // the guest asks again over the next connection
}

// Push sends the host's own word to every mount; one that has no connection now gets it with its next.
func (s *Server) Push(kind uint64, data []byte) {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, ses := range s.sessions {
		sessions = append(sessions, ses)
	}
	s.mu.Unlock()
	push := wire.Response{Value: kind, Data: data}
	frame := push.Append(nil)
	for _, ses := range sessions {
		ses.push(frame)
	}
}

// do carries one request out.
func (s *Server) do(r *wire.Request) (res wire.Response) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request of a share failed", "op", r.Op, "panic", p)
			res = wire.Response{ID: r.ID, Errno: wire.EIO}
		}
	}()
	if s.o.ReadOnly && r.Op.Mutates() {
		return wire.Response{ID: r.ID, Errno: wire.EROFS}
	}
	var done func(error, wire.Attr)
	if s.o.Journal != nil && r.Op.Mutates() {
		path, to := join(r.Path, r.Name), ""
		if r.Path2 != "" || r.Name2 != "" {
			to = join(r.Path2, r.Name2)
		}
		done = s.o.Journal.Begin(r.Op, path, to)
	}
	err := s.tree.do(r, &res)
	if done != nil {
		done(err, res.Attr)
	}
	res.ID = r.ID
	if err != nil {
		res = wire.Response{ID: r.ID, Errno: errno(err), Value: res.Value}
	}
	return res
}

// join is a path's child, in the share's own notation.
func join(dir, name string) string {
	switch {
	case dir == "":
		return name
	case name == "":
		return dir
	}
	return dir + "/" + name
}

// session finds the memory of what a mount has asked; known says that there was one.
func (s *Server) session(id [16]byte) (ses *session, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses, known = s.sessions[id]; known {
		return ses, true
	}
	if len(s.sessions) >= maxSessions {
		clear(s.sessions) // of machines that are long gone
	}
	ses = &session{entries: map[uint64]*outcome{}}
	s.sessions[id] = ses
	return ses, false
}

const (
	maxSessions = 16
	// remembered is how many answers a session keeps. The guest has far fewer requests under way.
	remembered = 4096
)

// session remembers answers to requests that change something.
type session struct {
	mu      sync.Mutex
	entries map[uint64]*outcome
	order   []uint64

	pushing sync.Mutex  // held while a push is sent
	conn    *connection // the one in use
	// pushes are the host's newest words, of which there were count.
	pushes [][]byte
	size   int
	count  uint64
}

// maxPushes bounds what is kept of them, in bytes.
const maxPushes = 4 << 20

// push keeps a word and sends it, if there is somebody to send it to.
func (s *session) push(frame []byte) {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	s.count++
	s.pushes = append(s.pushes, frame)
	for s.size += len(frame); s.size > maxPushes; s.pushes = s.pushes[1:] {
		s.size -= len(s.pushes[0])
	}
	if s.conn != nil {
		s.conn.sendFrame(frame)
	}
}

// attach makes a connection the one in use, and sends what it has missed: where that is no longer kept, that everything may have changed.
func (s *session) attach(c *connection, seen uint64) {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	s.conn = c
	if missed := s.count - min(seen, s.count); missed <= uint64(len(s.pushes)) {
		s.pushes = s.pushes[uint64(len(s.pushes))-missed:]
	} else {
		all := wire.Response{Value: wire.PushInvalidate}
		s.pushes, s.count = [][]byte{all.Append(nil)}, seen+1
	}
	s.size = 0
	for _, frame := range s.pushes {
		s.size += len(frame)
		c.sendFrame(frame)
	}
}

func (s *session) detach(c *connection) {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	if s.conn == c {
		s.conn = nil
	}
}

// outcome is an answer that is there once done is closed.
type outcome struct {
	done  chan struct{}
	frame []byte
}

// once runs a request the first time it comes, and gives its answer every time.
func (s *session) once(id uint64, run func() []byte) []byte {
	s.mu.Lock()
	if o := s.entries[id]; o != nil {
		s.mu.Unlock()
		<-o.done
		return o.frame
	}
	o := &outcome{done: make(chan struct{})}
	s.entries[id] = o
	s.order = append(s.order, id)
	if len(s.order) > 2*remembered {
		for _, old := range s.order[:remembered] {
			delete(s.entries, old)
		}
		s.order = append(s.order[:0], s.order[remembered:]...)
	}
	s.mu.Unlock()
	o.frame = run()
	close(o.done)
	return o.frame
}
