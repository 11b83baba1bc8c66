// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errLocked says that somebody else holds a lock.
var errLocked = errors.New("locked by another process")

// fileLock is an exclusive lock that the kernel frees when its process ends. It
// is an open file description lock, which can be asked about, unlike flock's.
type fileLock struct{ f *os.File }

// tryLock takes a lock or fails with errLocked.
func tryLock(name string) (*fileLock, error) {
	f, err := openLock(name)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = errLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileLock{f}, nil
}

// waitLock takes a lock, waiting for its holder until ctx ends.
func waitLock(ctx context.Context, name string) (*fileLock, error) {
	type result struct {
		lock *fileLock
		err  error
	}
	ch := make(chan result, 1)
	go func() { // this wait cannot be interrupted: when ctx ends first the lock is dropped as soon as it is got
		f, err := openLock(name)
		if err == nil {
			err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		}
		ch <- result{&fileLock{f}, err}
	}()
	select {
	case r := <-ch:
		if r.err != nil {
			return nil, fmt.Errorf("lock %q: %w", name, r.err)
		}
		return r.lock, nil
	case <-ctx.Done():
		go func() {
			if r := <-ch; r.err == nil {
				r.lock.unlock()
			}
		}()
		return nil, fmt.Errorf("wait for lock %q: %w", name, context.Cause(ctx))
	}
}

func openLock(name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
}

// unlock frees the lock. The file stays: removing it would let two processes
// hold "the" lock.
func (l *fileLock) unlock() {
	// Said and not left to closing: a child between fork and exec has the open file, too.
	_ = unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	_ = l.f.Close() // closing frees the lock whatever it returns
}

// isLocked says that a live process holds the lock. It asks without taking it,
// so that asking never makes somebody else's attempt fail.
func isLocked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	query := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query)
	return err == nil && query.Type != unix.F_UNLCK
}

// lockHolder is a process that has a lock's file open; 0 when none is found.
func lockHolder(name string) int {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == name {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2]) // the pattern has only digits
			return pid
		}
	}
	return 0
}
