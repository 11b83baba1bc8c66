// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Player repeats a host's file events on one mount. Run is for one goroutine; Mine, Answer and Watches are safe for concurrent use.
type Player struct {
	root    int // the mount's root folder
	device  uint32
	picture Picture
	log     *slog.Logger
	proc    string
	seen    seen // Run's alone
	moves   bool // so is this: something moves in the batch under way

	thread   atomic.Uint32
	mu       sync.Mutex
	expected map[place]Answer // by the operation under way
}

// place is a name in a folder, by FUSE's number.
type place struct {
	folder uint64
	name   string
}

// Answer is what the share's server must say of a name that an operation of the player's is about.
type Answer struct {
	// Absent: there is no such name. Of the name "" in a file: it has no names left.
	Absent bool
	// Not: neither is there if it is of the file with this identity, which is just moving there, or came after the one that is told of.
	Not uint64
	// Expected: if the guest knows no such name, there is one all the same, of what the host has at Host now, or, if that is "" or nothing, of a made-up
	// file with Mode. What a creation makes is the same.
	Expected bool
	Host     string
	Mode     uint32
}

// New returns a player for a mount. root is a descriptor of its root folder, best of a clone of the mount that is writable and has no mounts on it
// (open_tree); the caller closes it after Run has returned.
func New(root int, p Picture, log *slog.Logger) (*Player, error) {
	var st unix.Statx_t
	if err := unix.Statx(root, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil { // without asking the host, who may not be there yet
		return nil, fmt.Errorf("replay file events: %w", err)
	}
	return &Player{root: root, device: st.Dev_major<<20 | st.Dev_minor, picture: p, log: log, proc: "/proc"}, nil
}

// Mine reports whether the player makes a request, by the thread that the FUSE header names.
func (p *Player) Mine(thread uint32) bool { return thread != 0 && p.thread.Load() == thread }

// Watches are the files of the mount that programs watch now, by FUSE's numbers; all: they may be any.
func (p *Player) Watches() (nodes map[uint64]bool, all bool) {
	w := scan(p.proc, p.device)
	return w.nodes, w.all
}

// Answer says what to answer to a request of the player's about a name in a folder; the zero Answer: what the guest knows.
func (p *Player) Answer(folder uint64, name string) Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.expected[place{folder, name}]
}

// Run replays batches of events until next fails, which it does when ctx is done, and returns that error.
func (p *Player) Run(ctx context.Context, next func(ctx context.Context) ([]wire.Event, error)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.thread.Store(uint32(unix.Gettid()))
	defer p.thread.Store(0)
	for {
		events, err := next(ctx)
		if err != nil {
			return err
		}
		p.play(events)
	}
}

const (
	// scanAgain is how long what programs watch is taken for granted while events are replayed; longer where it takes long to find out.
	scanAgain = 100 * time.Millisecond
	scanShare = 10 // scanning takes less than one part in so many of the time
	// manyEvents are in batches of a storm.
	manyEvents = 500
)

// seen is what programs watch, until it is due to look again.
type seen struct {
	watches
	due time.Time
}

// look finds out who watches, if that is due.
func (p *Player) look() {
	now := time.Now()
	if now.Before(p.seen.due) {
		return
	}
	p.seen.watches = scan(p.proc, p.device)
	took := time.Since(now)
	p.seen.due = now.Add(took + max(scanAgain, scanShare*took))
}

// play replays one batch.
func (p *Player) play(events []wire.Event) {
	// What is read from now on is new, even by who is woken by an earlier event of the batch. Where a file is may become clear only by what moves in it.
	p.moves = false
	for _, e := range events {
		switch e.Kind {
		case wire.Modified, wire.Attributes:
			p.picture.Changed(e.Path)
		case wire.Moved:
			p.moves = true
		}
	}
	if len(events) < manyEvents {
		p.seen.due = time.Time{} // who has begun to watch just now must hear of it
	}
	pl := newPlanner(p.picture, func(n Node) bool { return p.seen.has(n) }, events)
	for i := 0; i < len(events); i++ {
		p.look()
		s, covered := pl.plan(i)
		if s.do == compare {
			p.compare(s.event.Path, p.seen.watches)
			continue
		}
		p.perform(s)
		i += covered
	}
}

// perform does one step, and tells those who watch files that the guest found to have lost their names before the step came, or meanwhile: the operation is not about
// them any more.
func (p *Player) perform(s step) {
	p.repeat(s)
	switch s.event.Kind {
	case wire.Created, wire.Deleted:
		p.tellLost(s.event.Path, false)
	case wire.Moved:
		p.tellLost(s.event.Path, true)
		p.tellLost(s.event.To, false)
	}
}

// tellLost has the kernel tell those who watch files that lost a name: of their attributes, and, unless they moved, of their end.
func (p *Player) tellLost(path string, moved bool) {
	n, _ := p.picture.Node(path)
	lost := slices.DeleteFunc(n.Lost, func(n Node) bool { return !p.seen.has(n) })
	if len(lost) == 0 {
		return
	}
	host, there := p.picture.Host(path)
	for _, n := range lost {
		gone := !moved && (!there || host.Ident != n.Ident)
		p.expect(map[place]Answer{{n.ID, ""}: {Absent: gone, Expected: true}})
		if err := p.touchNode(n.ID); err != nil {
			p.log.Debug("tell of a file that lost its name", "name", path, "error", err)
		}
		p.expect(nil)
	}
}

// repeat does what a step says. What cannot be repeated is made invalid.
func (p *Player) repeat(s step) {
	e := s.event
	if s.do == invalidate {
		p.invalidate(e)
		return
	}
	if p.moves && s.do != create && s.do != remove && s.do != rename {
		p.picture.Changed(e.Path) // its place may not have been known before
	}
	err := p.operate(s)
	if s.do == remove && (errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR)) { // the guest has found what is there now
		err = p.operate(s.remove(p.picture))
	}
	if err != nil {
		p.log.Debug("replay file event", "event", e.String(), "error", err)
		p.invalidate(e)
		return
	}
	if s.do == rename {
		p.settle(e.To)
	}
}

// touchNode sets times of a file that has no name. The kernel opens it by the handle that it would give for it, which is FUSE's number (fs/fuse/inode.c).
func (p *Player) touchNode(id uint64) error {
	handle := binary.NativeEndian.AppendUint32(nil, uint32(id>>32)) // as fs/fuse/inode.c has it
	handle = binary.NativeEndian.AppendUint32(handle, uint32(id))
	handle = binary.NativeEndian.AppendUint32(handle, 0)
	mount, err := unix.Openat(p.root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // one that is only a path is not taken
	if err != nil {
		return err
	}
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(fuseHandle, handle), unix.O_PATH|unix.O_CLOEXEC)
	if err == nil {
		err = errors.Join(unix.UtimesNanoAt(fd, "", times(false), unix.AT_EMPTY_PATH), unix.Close(fd))
	}
	return errors.Join(err, unix.Close(mount))
}

// fuseHandle is the kernel's type of FUSE's file handles: number and generation.
const fuseHandle = 0x81

// settle makes a name invalid that the move gave to another file than the host has there. That it is not there any more is told by an event to come.
func (p *Player) settle(path string) {
	have, known := p.picture.Node(path)
	if host, there := p.picture.Host(path); there && (!known || have.Ident != host.Ident) {
		p.picture.Gone(path)
	}
}

func (p *Player) invalidate(e wire.Event) {
	switch e.Kind {
	case wire.Modified, wire.Attributes:
		if p.moves { // otherwise that was done before
			p.picture.Changed(e.Path)
		}
	case wire.Closed: // which changes nothing
	case wire.Moved:
		p.picture.Gone(e.Path)
		p.picture.Gone(e.To)
	default:
		p.picture.Gone(e.Path)
	}
}

// expect says what names are to the server until it is said otherwise.
func (p *Player) expect(names map[place]Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = names
}

// names are what a step's names are to the server.
func (p *Player) names(s step) map[place]Answer {
	names := map[place]Answer{}
	mode := s.mode()
	switch s.do {
	case create:
		names[p.place(s.event.Path)] = Answer{Absent: true, Expected: true, Host: s.host, Mode: mode}
	case rename:
		names[p.place(s.event.Path)] = Answer{Expected: true, Host: s.host, Mode: mode, Not: s.not}
		names[p.place(s.event.To)] = Answer{Absent: !s.replaced, Not: s.node.Ident}
	case remove:
		names[p.place(s.event.Path)] = Answer{Expected: true, Mode: mode, Not: s.not} // what the host has there now is another one
	default:
		names[p.place(s.event.Path)] = Answer{Expected: true, Host: s.event.Path, Mode: mode}
	}
	return names
}

// mode is the type of a file of which nothing else may be known.
func (s step) mode() uint32 {
	switch {
	case s.do != create && s.node.Mode != 0:
		return s.node.Mode
	case s.event.Dir:
		return wire.TypeFolder | 0o755
	}
	return wire.TypeRegular | 0o644
}

func (p *Player) place(path string) place {
	folder, name := split(path)
	n, _ := p.picture.Node(folder)
	return place{n.ID, name}
}

// operate does what tells the watches, as many times as it takes: a signal may end a request.
func (p *Player) operate(s step) (err error) {
	p.expect(p.names(s))
	defer p.expect(nil)
	const attempts = 10
	for range attempts {
		if err = p.once(s); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return err
}

func (p *Player) once(s step) error {
	path := s.event.Path
	if s.not != 0 {
		p.askAgain(path)
	}
	switch s.do {
	case create:
		return p.create(path, s)
	case modify:
		return p.setTimes(path, true)
	case touch, rewrite:
		return p.reopen(path, s.do == rewrite)
	case setAttributes:
		return p.setTimes(path, false)
	case remove:
		if dir := s.event.Dir || s.node.dir(); dir {
			return unix.Unlinkat(p.root, path, unix.AT_REMOVEDIR)
		}
		return unix.Unlinkat(p.root, path, 0)
	case rename:
		return unix.Renameat(p.root, path, p.root, s.event.To)
	}
	return fmt.Errorf("replay: no action %d", s.do)
}

// askAgain has the kernel ask who a name is of, though it knows. It does so for names that are to be made, before it finds that there are no links between two mounts.
func (p *Player) askAgain(path string) {
	_ = unix.Linkat(unix.AT_FDCWD, "/", p.root, path, 0)
}

// create makes what the host has.
func (p *Player) create(path string, s step) error {
	mode := s.mode()
	if s.host != "" {
		if n, ok := p.picture.Host(s.host); ok {
			mode = n.Mode
		}
	}
	switch mode & wire.TypeMask {
	case wire.TypeFolder:
		return unix.Mkdirat(p.root, path, mode&0o7777)
	case wire.TypeSymlink:
		return unix.Symlinkat("target", p.root, path)
	case wire.TypeRegular, unix.S_IFIFO, unix.S_IFSOCK:
		return unix.Mknodat(p.root, path, mode, 0)
	}
	return unix.Mknodat(p.root, path, unix.S_IFREG|mode&0o777, 0) // a device, which the share does not let be made
}

// times are any: the server answers with those of the host.
func times(modifiedOnly bool) []unix.Timespec {
	t := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	if modifiedOnly {
		t[0] = unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return t
}

func (p *Player) setTimes(path string, modifiedOnly bool) error {
	if path == "" {
		path = "."
	}
	return unix.UtimesNanoAt(p.root, path, times(modifiedOnly), unix.AT_SYMLINK_NOFOLLOW)
}

// reopen opens a file for writing and closes it, as who writes it does. One that is being run cannot be opened; its change is told all the same.
func (p *Player) reopen(path string, modified bool) error {
	fd, err := unix.Openat(p.root, path, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		if modified {
			return p.setTimes(path, true)
		}
		return err
	}
	if modified {
		err = unix.UtimesNanoAt(fd, "", times(true), unix.AT_EMPTY_PATH)
	}
	return errors.Join(err, unix.Close(fd))
}

// compare tells of names in a folder that are gone, or are another file's. What came is told by events of its own.
func (p *Player) compare(folder string, seen watches) {
	parent, known := p.picture.Node(folder)
	if !known {
		return
	}
	p.picture.Changed(folder)
	for _, name := range p.picture.Names(folder) {
		path := join(folder, name)
		have, _ := p.picture.Node(path)
		if host, there := p.picture.Host(path); there && host.Ident == have.Ident {
			p.tellLost(path, false)
			continue
		}
		e := wire.Event{Kind: wire.Deleted, Path: path, Dir: have.dir()}
		s := step{event: e, node: have}
		if parent.ID != 0 && (seen.has(parent) || seen.has(have)) {
			s.do = remove
		}
		p.perform(s)
	}
}

func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}
