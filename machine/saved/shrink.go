// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// ErrWanted says that a state is wanted, or gone, and was left as it is.
var ErrWanted = errors.New("the saved memory is wanted")

// wantedEvery is how often Shrink looks whether somebody wants the state.
const wantedEvery = 20 * time.Millisecond

// Shrink compresses the state in a folder, in any process. It never keeps anybody waiting: who takes the state has it as it is, and Shrink gives up. There
// may be none.
func Shrink(ctx context.Context, dir string) error {
	state, err := Read(dir)
	if err != nil || state == nil || state.Shrunk {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchWanted(ctx, dir, func() { cancel(ErrWanted) })
	}()
	defer func() { cancel(nil); <-watched }()
	next := *state
	next.Shrunk, next.File = true, strings.ToLower(rand.Text()[:12])+fileSuffix
	if err := Compress(ctx, state.Path(), next.Path()); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if err := state.exchange(&next); err != nil {
		return errors.Join(err, os.Remove(next.Path()))
	}
	return nil
}

// watchWanted calls f when the lock is held.
func watchWanted(ctx context.Context, dir string, f func()) {
	tick := time.NewTicker(wantedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		unlock, err := tryLock(dir)
		if err != nil {
			f()
			return
		}
		unlock()
	}
}

func tryLock(dir string) (unlock func(), err error) {
	l := flock.New(filepath.Join(dir, lockName))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the saved memory: %w", err)
	}
	if !ok {
		return nil, ErrWanted
	}
	return func() { _ = l.Unlock() }, nil
}

// exchange puts next in the place of a state, if that is still there.
func (i *Info) exchange(next *Info) error {
	if err := next.describe(); err != nil {
		return err
	}
	unlock, err := tryLock(i.dir)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := Read(i.dir)
	if err != nil {
		return err
	}
	if now == nil || now.File != i.File {
		return ErrWanted
	}
	if err := next.write(); err != nil {
		return err
	}
	return os.Remove(i.Path())
}
