// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// directoryChanges is Windows' way: ReadDirectoryChangesW on the whole tree. It does not tell attributes from content, so two handles are read: one for
// names and content, one for attributes and security.
type directoryChanges struct {
	treeSet
	root    string
	streams []*stream
	events  chan []raw
	pair    pairer
	done    sync.WaitGroup
	ended   chan struct{}
	once    sync.Once
}

// stream is one handle that is read.
type stream struct {
	handle windows.Handle
	stop   windows.Handle // event
	filter uint32
	buf    []byte
	moves  uint64
}

const (
	contentFilter   = windows.FILE_NOTIFY_CHANGE_FILE_NAME | windows.FILE_NOTIFY_CHANGE_DIR_NAME | windows.FILE_NOTIFY_CHANGE_SIZE | windows.FILE_NOTIFY_CHANGE_LAST_WRITE
	attributeFilter = windows.FILE_NOTIFY_CHANGE_ATTRIBUTES | windows.FILE_NOTIFY_CHANGE_SECURITY
	// A network's file system takes no larger buffer; a local one loses events when it is small.
	changesBuffer = 64 << 10
)

func newSource(root string, mu *sync.Mutex, set *dirs) (source, error) {
	s := &directoryChanges{treeSet: treeSet{mu, set}, root: root, events: make(chan []raw), ended: make(chan struct{})}
	for _, filter := range []uint32{contentFilter, attributeFilter} {
		one, err := openStream(root, filter)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("watch folder %q: %w", root, err), s.close())
		}
		s.streams = append(s.streams, one)
		s.done.Go(func() { s.listen(one) })
	}
	return s, nil
}

func openStream(root string, filter uint32) (*stream, error) {
	name, err := windows.UTF16PtrFromString(root)
	if err != nil {
		return nil, err
	}
	handle, err := windows.CreateFile(name, windows.FILE_LIST_DIRECTORY, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OVERLAPPED, 0)
	if err != nil {
		return nil, err
	}
	stop, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return nil, errors.Join(err, windows.CloseHandle(handle))
	}
	return &stream{handle: handle, stop: stop, filter: filter, buf: make([]byte, changesBuffer)}, nil
}

func (s *directoryChanges) add(string) (int32, error) { return 0, nil }

func (s *directoryChanges) remove([]int32) {}

func (s *directoryChanges) close() error {
	s.once.Do(func() {
		close(s.ended)
		for _, one := range s.streams {
			_ = windows.SetEvent(one.stop) // a handle of ours
		}
	})
	s.done.Wait()
	return nil
}

func (s *directoryChanges) read(wait time.Duration) ([]raw, error) {
	var timeout <-chan time.Time
	if s.pair.waiting() {
		wait = pairWait
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case events := <-s.events:
		return s.filter(s.pair.feed(events)), nil
	case <-timeout:
		return s.filter(s.pair.release(time.Now())), nil
	case <-s.ended:
		return nil, os.ErrClosed
	}
}

// listen reads one handle until the source is closed.
func (s *directoryChanges) listen(one *stream) {
	defer func() { _, _ = windows.CloseHandle(one.handle), windows.CloseHandle(one.stop) }()
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return
	}
	defer func() { _ = windows.CloseHandle(event) }()
	for {
		n, err := one.next(event)
		events := s.parse(one, one.buf[:n])
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil || n == 0: // more happened than the buffer holds
			events = []raw{{lost: true, at: time.Now()}}
		}
		select {
		case s.events <- events:
		case <-s.ended:
			return
		}
		if err != nil && !errors.Is(err, windows.ERROR_NOTIFY_ENUM_DIR) {
			return // the folder is gone
		}
	}
}

// next waits for changes, or for the end.
func (one *stream) next(event windows.Handle) (uint32, error) {
	o := windows.Overlapped{HEvent: event}
	if err := windows.ResetEvent(event); err != nil {
		return 0, err
	}
	err := windows.ReadDirectoryChanges(one.handle, &one.buf[0], uint32(len(one.buf)), true, one.filter, nil, &o, 0)
	if err != nil && !errors.Is(err, windows.ERROR_IO_PENDING) {
		return 0, err
	}
	which, err := windows.WaitForMultipleObjects([]windows.Handle{one.stop, event}, false, windows.INFINITE)
	var n uint32
	if err != nil || which == windows.WAIT_OBJECT_0 {
		_ = windows.CancelIoEx(one.handle, &o)                    // the buffer is the system's until it is done
		_ = windows.GetOverlappedResult(one.handle, &o, &n, true) //nolint:errcheck // it was cancelled
		return 0, errors.Join(os.ErrClosed, err)
	}
	err = windows.GetOverlappedResult(one.handle, &o, &n, false)
	return n, err
}

// parse reads the system's records.
func (s *directoryChanges) parse(one *stream, b []byte) []raw {
	var events []raw
	now := time.Now()
	for len(b) >= int(unsafe.Offsetof(windows.FileNotifyInformation{}.FileName)) {
		r := (*windows.FileNotifyInformation)(unsafe.Pointer(&b[0]))
		name := windows.UTF16ToString(unsafe.Slice(&r.FileName, r.FileNameLength/2))
		e := raw{Event: wire.Event{Path: filepath.ToSlash(name)}, at: now}
		e.Kind, e.cookie = one.kind(r.Action)
		e.Dir = s.isDir(name, e)
		if e.Kind != 0 && (!e.Dir || e.Kind != wire.Modified) { // a folder is said to be modified when something in it was
			events = append(events, e)
		}
		if r.NextEntryOffset == 0 || int(r.NextEntryOffset) > len(b) {
			break
		}
		b = b[r.NextEntryOffset:]
	}
	return events
}

func (one *stream) kind(action uint32) (wire.EventKind, uint64) {
	switch action {
	case windows.FILE_ACTION_ADDED:
		return wire.Created, 0
	case windows.FILE_ACTION_REMOVED:
		return wire.Deleted, 0
	case windows.FILE_ACTION_RENAMED_OLD_NAME:
		one.moves++
		return wire.Deleted, one.moves
	case windows.FILE_ACTION_RENAMED_NEW_NAME:
		return wire.Created, one.moves
	case windows.FILE_ACTION_MODIFIED:
		if one.filter == attributeFilter {
			return wire.Attributes, 0
		}
		return wire.Modified, 0
	}
	return 0, 0
}

// isDir asks the file, or, if it is gone, whether it was watched as a folder.
func (s *directoryChanges) isDir(name string, e raw) bool {
	if e.Kind == wire.Deleted {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.dirs.find(e.Path) != nil
	}
	info, err := os.Lstat(filepath.Join(s.root, name))
	return err == nil && info.IsDir()
}
