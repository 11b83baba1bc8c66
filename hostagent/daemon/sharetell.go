// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/seed71221737/dev/hostagent"
	"github.com/seed71221737/dev/hostagent/fileevents"
	"github.com/seed71221737/dev/vmimage/guest/proto"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// A guest believes what it has read through virtiofs until it is told that it has changed. Who tells it is this side, which watches the folders: virtiofs itself
// knows no way. Where not all of them are watched (yet), the guest is to forget everything every second.

const (
	// forgetPause is how long a guest believes something while not everything is watched.
	forgetPause = time.Second
	// growPause is between attempts to watch folders that could not be watched.
	growPause = 30 * time.Second
	// tellWait bounds telling a guest that is busy.
	tellWait = 30 * time.Second
	// maxStale and maxStaleBytes bound the names that are told one by one: of more, everything is forgotten, which costs less.
	maxStale      = 2048
	maxStaleBytes = 1 << 20
)

// openTree watches a folder that is shared by virtiofs, if its guest is to believe what it is not told otherwise.
func (a *agent) openTree(share Share) {
	if runtime.GOOS != "linux" || share.cache() != hostagent.CacheWatched {
		return
	}
	w, err := fileevents.Open(share.Host, fileevents.Options{Tree: true, Logger: a.log})
	if err != nil {
		a.treeProblem(share, err)
		return
	}
	a.trees[share.Tag] = w
	a.onClose("watching of share "+share.Tag, w.Close)
}

// treeProblem tells that the guest believes nothing for long, or, without an error, that it does.
func (a *agent) treeProblem(s Share, err error) {
	if err == nil {
		a.state.problem("file events "+s.Tag, nil)
		return
	}
	p := &hostagent.Problem{
		Code: "file-events", Text: fmt.Sprintf("folder %q cannot be watched as a whole: changes there show in the machine after a second, and what it reads of it is slower: %v", s.Host, err),
		Hint: "share a smaller folder, or accept it: `--share " + s.Host + ",type=virtiofs,cache=auto`",
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		p.Hint = hinted.Hint()
	}
	a.state.problem("file events "+s.Tag, p)
}

// tellShare tells the guest of a life what it must not believe any more of a share, from when it is mounted until the life ends.
func (a *agent) tellShare(l *life, s *sharing) {
	for {
		err := a.awaitTree(l, s)
		if err == nil {
			err = a.tellChanges(l.ctx, s)
		}
		if l.ctx.Err() != nil {
			return
		}
		var refused *proto.Error
		if errors.As(err, &refused) && refused.Code == proto.CodeUnknown {
			a.believeLess(s)
			return
		}
		if err != nil {
			a.log.Debug("tell the machine what has changed", "share", s.share.Tag, "error", err)
		}
		if pause(l.ctx, retryPause) != nil {
			return
		}
	}
}

// awaitTree waits until all folders of a share are watched, and has the guest forget everything once they are, and every second until then.
func (a *agent) awaitTree(l *life, s *sharing) error {
	ctx, cancel := context.WithCancel(l.ctx)
	whole := make(chan struct{})
	defer func() {
		cancel()
		<-whole
	}()
	go func() {
		defer close(whole)
		for {
			err := s.tree.AddTree(ctx)
			if ctx.Err() != nil {
				return
			}
			a.treeProblem(s.share, err)
			if err == nil || pause(ctx, growPause) != nil {
				return
			}
		}
	}()
	for {
		done := false
		timer := time.NewTimer(forgetPause)
		select {
		case <-whole:
			done = true
		case <-timer.C:
		}
		timer.Stop()
		if err := a.tellStale(ctx, s, proto.Stale{All: true}); err != nil || done {
			return cmp.Or(err, l.ctx.Err())
		}
	}
}

// tellChanges tells what changes until it fails, or it is not known what has changed.
func (a *agent) tellChanges(ctx context.Context, s *sharing) error {
	for {
		events, err := s.tree.Next(ctx)
		if err != nil {
			return err
		}
		stale, known := staleNames(events)
		if !known {
			return nil
		}
		if err := a.tellStale(ctx, s, stale); err != nil {
			return err
		}
	}
}

// tellStale has its turn with who takes the share from the guest: what the guest looks at cannot be unmounted.
func (a *agent) tellStale(ctx context.Context, s *sharing, stale proto.Stale) error {
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	done, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	if s.leaving.Load() {
		return errors.New("the share is being taken from the machine")
	}
	stale.Target = s.share.Guest
	return a.link.call(ctx, proto.MethodStale, stale, nil)
}

// believeLess serves a share anew to a guest whose image is too old to be told anything.
func (a *agent) believeLess(s *sharing) {
	a.log.Warn("the machine's image is too old to be told what changes in a shared folder, and is to ask each time", "share", s.share.Tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain = true
	if s.now != nil {
		_ = s.now.cmd.Process.Kill() // it may have ended; another one is started
	}
}

// staleNames are the names that a guest must look at again after changes. They are not known where changes may be missing.
func staleNames(events []wire.Event) (stale proto.Stale, known bool) {
	at, size := map[string]int{}, 0
	note := func(path string, listed, content bool) {
		i, ok := at[path]
		if !ok {
			i = len(stale.Names)
			at[path] = i
			stale.Names = append(stale.Names, proto.StaleName{Path: []byte(path)})
			size += len(path)
		}
		n := &stale.Names[i]
		n.Listed, n.Content = n.Listed || listed, n.Content || content
	}
	for _, e := range events {
		switch e.Kind {
		case wire.Created, wire.Deleted:
			note(e.Path, true, false)
		case wire.Moved:
			note(e.Path, true, false)
			note(e.To, true, false)
		case wire.Modified:
			note(e.Path, false, true)
		case wire.Closed, wire.Attributes:
			note(e.Path, false, false)
		default:
			return proto.Stale{}, false
		}
	}
	if len(stale.Names) > maxStale || size > maxStaleBytes {
		return proto.Stale{All: true}, true
	}
	return stale, true
}
