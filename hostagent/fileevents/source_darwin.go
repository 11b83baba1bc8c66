// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// fsevents is macOS' way: one stream for the whole tree. The system merges what happens to a path in quick succession into one set of flags, which
// [flagKinds] takes apart again by looking at the file. Moves are paired by inode. Closing a file is not told.
type fsevents struct {
	treeSet
	root   string
	lib    *coreServices
	stream uintptr
	queue  uintptr
	names  struct{ path, inode uintptr } // keys of an event's dictionary
	events chan []raw
	pair   pairer
	ended  chan struct{}
	once   sync.Once
}

// coreServices are the functions of the system's libraries that are used, called without cgo.
type coreServices struct {
	stringCreate  func(alloc uintptr, text string, encoding uint32) uintptr
	stringGet     func(s uintptr, buf *byte, size int, encoding uint32) bool
	numberGet     func(n uintptr, kind int, to *uint64) bool
	arrayCreate   func(alloc uintptr, values *uintptr, n int, callbacks uintptr) uintptr
	arrayGet      func(a uintptr, i int) uintptr
	dictionaryGet func(d, key uintptr) uintptr
	release       func(ref uintptr)

	create     func(alloc, callback, context, paths uintptr, since uint64, latency float64, flags uint32) uintptr
	setQueue   func(stream, queue uintptr)
	start      func(stream uintptr) bool
	stop       func(stream uintptr)
	invalidate func(stream uintptr)
	free       func(stream uintptr)

	queueCreate  func(label string, attr uintptr) uintptr
	queueRelease func(queue uintptr)
}

func loadCoreServices() (*coreServices, error) {
	services, err := purego.Dlopen("/System/Library/Frameworks/CoreServices.framework/CoreServices", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	system, err := purego.Dlopen("/usr/lib/libSystem.B.dylib", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, err
	}
	c := &coreServices{}
	for name, f := range map[string]any{
		"CFStringCreateWithCString": &c.stringCreate, "CFStringGetCString": &c.stringGet, "CFNumberGetValue": &c.numberGet, "CFArrayCreate": &c.arrayCreate,
		"CFArrayGetValueAtIndex": &c.arrayGet, "CFDictionaryGetValue": &c.dictionaryGet, "CFRelease": &c.release,
		"FSEventStreamCreate": &c.create, "FSEventStreamSetDispatchQueue": &c.setQueue, "FSEventStreamStart": &c.start, "FSEventStreamStop": &c.stop,
		"FSEventStreamInvalidate": &c.invalidate, "FSEventStreamRelease": &c.free,
	} {
		purego.RegisterLibFunc(f, services, name)
	}
	purego.RegisterLibFunc(&c.queueCreate, system, "dispatch_queue_create")
	purego.RegisterLibFunc(&c.queueRelease, system, "dispatch_release")
	return c, nil
}

// From FSEvents.h, CFString.h and CFNumber.h.
const (
	sinceNow         = ^uint64(0)
	createUseCFTypes = 0x1
	createNoDefer    = 0x2
	createFileEvents = 0x10
	createExtended   = 0x40

	eventMustScan    = 0x1
	eventRootChanged = 0x20
	eventCreated     = 0x100
	eventRemoved     = 0x200
	eventMetadata    = 0x400
	eventRenamed     = 0x800
	eventModified    = 0x1000
	eventFinderInfo  = 0x2000
	eventOwner       = 0x4000
	eventXattr       = 0x8000
	eventIsDir       = 0x20000

	encodingUTF8  = 0x08000100
	numberSInt64  = 4
	streamLatency = 0.01 // s
	maxPath       = 4096
)

func newSource(root string, mu *sync.Mutex, set *dirs) (source, error) {
	lib, err := loadCoreServices()
	if err != nil {
		return nil, fmt.Errorf("watch folder %q: %w", root, err)
	}
	s := &fsevents{treeSet: treeSet{mu, set}, root: root, lib: lib, events: make(chan []raw), ended: make(chan struct{})}
	s.names.path, s.names.inode = lib.stringCreate(0, "path", encodingUTF8), lib.stringCreate(0, "fileID", encodingUTF8)
	folder := lib.stringCreate(0, root, encodingUTF8)
	defer lib.release(folder)
	paths := lib.arrayCreate(0, &folder, 1, 0)
	defer lib.release(paths)
	s.stream = lib.create(0, purego.NewCallback(s.receive), 0, paths, sinceNow, streamLatency, createUseCFTypes|createNoDefer|createFileEvents|createExtended)
	if s.stream == 0 {
		return nil, fmt.Errorf("watch folder %q: the system gives no event stream", root)
	}
	s.queue = lib.queueCreate("dev.fileevents", 0)
	lib.setQueue(s.stream, s.queue)
	if !lib.start(s.stream) {
		return nil, errors.Join(fmt.Errorf("watch folder %q: the event stream does not start", root), s.close())
	}
	return s, nil
}

func (s *fsevents) add(string) (int32, error) { return 0, nil }

func (s *fsevents) remove([]int32) {}

func (s *fsevents) close() error {
	s.once.Do(func() {
		close(s.ended)
		s.lib.stop(s.stream)
		s.lib.invalidate(s.stream)
		s.lib.free(s.stream)
		s.lib.queueRelease(s.queue)
	})
	return nil
}

func (s *fsevents) read(wait time.Duration) ([]raw, error) {
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

// receive is called by the system, on a thread of its own.
func (s *fsevents) receive(_, _ uintptr, n int, list uintptr, flags *uint32, _ uintptr) uintptr {
	var events []raw
	now := time.Now()
	buf := make([]byte, maxPath)
	for i, f := range unsafe.Slice(flags, n) {
		event := s.lib.arrayGet(list, i)
		var inode uint64
		if number := s.lib.dictionaryGet(event, s.names.inode); number != 0 {
			s.lib.numberGet(number, numberSInt64, &inode)
		}
		name := s.lib.dictionaryGet(event, s.names.path)
		if name == 0 || !s.lib.stringGet(name, &buf[0], len(buf), encodingUTF8) {
			continue
		}
		text, _, _ := strings.Cut(string(buf), "\x00")
		events = append(events, s.parse(text, inode, f, now)...)
	}
	select {
	case s.events <- events:
	case <-s.ended:
	}
	return 0
}

// parse takes one event of the system's apart.
func (s *fsevents) parse(name string, inode uint64, flags uint32, now time.Time) []raw {
	if flags&(eventMustScan|eventRootChanged) != 0 {
		return []raw{{lost: true, at: now}}
	}
	if len(name) <= len(s.root) || !strings.EqualFold(name[:len(s.root)], s.root) {
		return nil
	}
	path := filepath.ToSlash(strings.TrimPrefix(name[len(s.root):], "/"))
	info, err := os.Lstat(name)
	found := false // the file itself, not another of its name
	var age time.Duration
	if err == nil {
		found = stampOf(info).Inode == inode || inode == 0
		age = now.Sub(born(name, info))
	}
	var events []raw
	for _, k := range flagKinds(flags, found, err == nil, age < justNow) {
		e := raw{Event: wire.Event{Kind: k, Path: path, Dir: flags&eventIsDir != 0}, at: now}
		if flags&eventRenamed != 0 && (k == wire.Created || k == wire.Deleted) {
			e.cookie = inode
		}
		events = append(events, e)
	}
	return events
}

// justNow is how old a file may be that a flag calls created: flags of earlier events stay for a while.
const justNow = 2 * time.Second

// flagKinds takes a set of flags apart: what has happened to a path that has the file now (found), or something (taken), which may have been made just now.
func flagKinds(flags uint32, found, taken, fresh bool) []wire.EventKind {
	var kinds []wire.EventKind
	switch {
	case flags&eventRenamed != 0 && found:
		kinds = append(kinds, wire.Created)
	case flags&eventRenamed != 0:
		return append(kinds, wire.Deleted)
	case flags&eventRemoved != 0 && !found:
		return append(kinds, wire.Deleted)
	case flags&eventCreated != 0 && fresh:
		kinds = append(kinds, wire.Created)
	}
	if !taken {
		return kinds
	}
	if flags&eventModified != 0 && flags&eventIsDir == 0 {
		kinds = append(kinds, wire.Modified)
	}
	if flags&(eventMetadata|eventFinderInfo|eventOwner|eventXattr) != 0 && flags&eventModified == 0 {
		kinds = append(kinds, wire.Attributes)
	}
	return kinds
}
