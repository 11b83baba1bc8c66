// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// inotify is Linux's way: one watch for each folder.
type inotify struct {
	root string
	file *os.File // in the runtime's poller, so that reading costs no thread and close ends it
	fd   int
	buf  []byte
	pair pairer

	mu   *sync.Mutex // of the set
	dirs *dirs
}

// newSource begins to watch nothing. The set is told which folders have moved or gone.
func newSource(root string, mu *sync.Mutex, set *dirs) (source, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, &LimitError{Setting: "fs.inotify.max_user_instances", Enough: 1024, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	return &inotify{root: root, file: os.NewFile(uintptr(fd), "inotify"), fd: fd, buf: make([]byte, 256<<10), mu: mu, dirs: set}, nil
}

// mostFolders is how many folders one share may have watched.
func mostFolders() int {
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_watches")
	if err != nil {
		return 0 // the kernel says when it is enough
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(data))) // it is a number
	return n / shareOfWatches
}

const inotifyMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

func (s *inotify) add(path string) (int32, error) {
	if path == "" {
		return s.addWatch(s.root, path, inotifyMask|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF)
	}
	fd, err := s.openBeneath(path)
	if err != nil {
		return 0, fmt.Errorf("watch folder %q: %w", path, err)
	}
	defer unix.Close(fd)
	return s.addWatch("/proc/self/fd/"+strconv.Itoa(fd), path, inotifyMask)
}

// openBeneath opens a folder without leaving the root: the path is the guest's word, and so are the symbolic links on it.
func (s *inotify) openBeneath(path string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	at, err := unix.Open(s.root, flags, 0)
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(at, path, &how)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		_ = unix.Close(at) // only a place to start from
		return fd, err
	}
	for name := range names(path) { // an old kernel, or a sandbox that knows no such call
		fd, err := unix.Openat(at, name, flags, 0)
		_ = unix.Close(at) // as above
		if err != nil {
			return -1, err
		}
		at = fd
	}
	return at, nil
}

func (s *inotify) addWatch(name, path string, mask uint32) (int32, error) {
	handle, err := unix.InotifyAddWatch(s.fd, name, mask)
	if errors.Is(err, unix.ENOSPC) {
		return 0, &LimitError{Setting: watchesSetting, Enough: 1 << 20, Err: err}
	}
	if err != nil {
		return 0, fmt.Errorf("watch folder %q: %w", path, err)
	}
	return int32(handle), nil
}

func (s *inotify) remove(handles []int32) {
	for _, h := range handles {
		_, _ = unix.InotifyRmWatch(s.fd, uint32(h)) // the system has, mostly
	}
}

func (s *inotify) close() error { return s.file.Close() }

func (s *inotify) read(wait time.Duration) ([]raw, error) {
	if s.pair.waiting() {
		wait = pairWait
	}
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	n, err := s.file.Read(s.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.settle(s.pair.release(time.Now())), nil
	}
	if err != nil {
		return nil, err
	}
	return s.settle(s.pair.feed(s.parse(s.buf[:n], time.Now()))), nil
}

// parse reads the kernel's records.
func (s *inotify) parse(b []byte, now time.Time) []raw {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := make([]raw, 0, len(b)/32)
	for len(b) >= unix.SizeofInotifyEvent {
		handle, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		cookie, size := binary.NativeEndian.Uint32(b[8:]), int(binary.NativeEndian.Uint32(b[12:]))
		name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
		b = b[unix.SizeofInotifyEvent+size:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			events = append(events, raw{lost: true, at: now})
			continue
		case mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
			s.dirs.ended(handle)
			continue
		}
		dir, known := s.dirs.path(handle)
		if !known || name == "" && (dir != "" || mask&unix.IN_ATTRIB == 0) { // what befalls a folder itself is told of its name in the one above
			continue
		}
		e := raw{Event: wire.Event{Kind: kindOf(mask), Path: join(dir, name), Dir: mask&unix.IN_ISDIR != 0}, at: now}
		if mask&unix.IN_MOVE != 0 {
			e.cookie, e.handle = uint64(cookie), s.dirs.handle(e.Path)
		}
		// Records that follow name a moved folder's content by its handle: its new place must be known by then.
		if e.Dir && e.cookie != 0 && e.Kind == wire.Created {
			if from := s.pair.origin(events, e.cookie); from != "" {
				s.remove(s.dirs.move(from, e.Path))
			}
		}
		events = append(events, e)
	}
	return events
}

// settle drops folders that have left the folders that are watched from the set, with all below them. Of those that are deleted the kernel tells itself.
func (s *inotify) settle(events []raw) []raw {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if e.Kind == wire.Deleted && e.handle != 0 && s.dirs.handle(e.Path) == e.handle {
			s.remove(s.dirs.drop(e.Path))
		}
	}
	return events
}

func kindOf(mask uint32) wire.EventKind {
	switch {
	case mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
		return wire.Created
	case mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		return wire.Deleted
	case mask&unix.IN_MODIFY != 0:
		return wire.Modified
	case mask&unix.IN_CLOSE_WRITE != 0:
		return wire.Closed
	default:
		return wire.Attributes
	}
}
