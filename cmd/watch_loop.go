// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine"
	"github.com/seed71221737/dev/engine/watch"
)

// run follows the files until ctx is done, whose error it returns.
func (w *watching) run(ctx context.Context) error {
	for {
		edited, err := w.follow(ctx)
		if err != nil || !edited {
			return err
		}
		w.announceReload(ctx)
	}
}

// announceReload applies a Compose file that was edited: its rules count already.
func (w *watching) announceReload(ctx context.Context) {
	w.a.say("The Compose file was edited; its rules count from now on")
	if w.o.noUp {
		return
	}
	if err := w.up(ctx, w.services, nil); err != nil && ctx.Err() == nil {
		w.complain(err)
	}
}

// follow watches by the rules as they are, until ctx is done or the Compose file is another, which it then has taken over.
func (w *watching) follow(ctx context.Context) (edited bool, err error) {
	w.tree, err = watch.New(watch.Options{Roots: w.roots(), Prune: w.prune, Logger: w.a.logger()})
	if err != nil {
		return false, err
	}
	defer w.tree.Close()
	following, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	changes, started, failed := make(chan []compose.WatchChange), make(chan compose.Container), make(chan error, 2)
	ready := make(chan struct{})
	others.Go(func() { failed <- w.feedStarts(following, started, ready) })
	others.Go(func() { failed <- w.feedChanges(following, changes) })
	select {
	case <-ready:
	case err := <-failed:
		return false, err
	}
	if err := w.begin(ctx); err != nil {
		return false, err
	}
	w.announce()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case err := <-failed:
			return false, err
		case set := <-changes:
			w.react(ctx, set)
			if w.editsProject(set) && w.reload(ctx) {
				return true, nil
			}
		case c := <-started:
			w.bringUpToDate(ctx, c)
		}
	}
}

// feedChanges gives the tree's changes on.
func (w *watching) feedChanges(ctx context.Context, changes chan<- []compose.WatchChange) error {
	for {
		set, err := w.tree.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case changes <- set:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// feedStarts tells of containers that start, once it has said that it is ready.
func (w *watching) feedStarts(ctx context.Context, started chan<- compose.Container, ready chan<- struct{}) error {
	return w.e.Events(ctx, engine.EventsOptions{Project: w.p.Name, Ready: sync.OnceFunc(func() { close(ready) })}, func(e engine.Event) {
		c := e.Container()
		if e.Action != "start" || c.OneOff() || !w.watches(c.Service()) {
			return
		}
		select {
		case started <- c:
		case <-ctx.Done():
		}
	})
}

// watches reports whether there are rules for a service.
func (w *watching) watches(service string) bool {
	return slices.ContainsFunc(w.rules, func(r compose.WatchRule) bool { return r.Service == service })
}

// roots are what has to be watched: what the rules name, and the project's own files.
func (w *watching) roots() []string {
	roots := w.projectFiles()
	for _, r := range w.rules {
		roots = append(roots, r.Path)
	}
	return roots
}

// prune reports that no rule needs a folder.
func (w *watching) prune(dir string) bool {
	return !slices.ContainsFunc(w.rules, func(r compose.WatchRule) bool { return !r.Prunes(dir) })
}

// projectFiles are the files that the project is read from, as far as they are known.
func (w *watching) projectFiles() []string {
	var files []string
	for _, f := range w.p.ComposeFiles {
		if filepath.IsAbs(f) {
			files = append(files, filepath.Clean(f))
		}
	}
	if len(w.a.envFiles) > 0 {
		files = append(files, w.a.envFiles...)
	} else {
		files = append(files, filepath.Join(w.p.WorkingDir, ".env"))
	}
	for _, s := range w.p.Services {
		for _, f := range s.EnvFiles {
			files = append(files, filepath.Clean(f.Path))
		}
	}
	return files
}

// editsProject reports whether one of the project's files is among the changes. One that is gone is on its way back, as editors have it.
func (w *watching) editsProject(set []compose.WatchChange) bool {
	files := w.projectFiles()
	return slices.ContainsFunc(set, func(c compose.WatchChange) bool { return !c.Removed && slices.Contains(files, c.Path) })
}

// reload reads the project again and takes its rules over. A project with an error is told of and leaves things as they are until the next edit.
func (w *watching) reload(ctx context.Context) bool {
	before, rules := w.p, w.rules
	p, err := w.a.load(ctx, w.services...)
	if err == nil {
		w.p = p
		err = w.findRules()
	}
	if err != nil {
		w.p, w.rules = before, rules
		if ctx.Err() == nil {
			w.complain(err)
			w.a.say("The rules stay as they were until the Compose file is right")
		}
		return false
	}
	return true
}

// complain shows an error that does not end the watching.
func (w *watching) complain(err error) {
	if s, ok := errors.AsType[silent](err); ok && s.Silent() {
		return // it has been told
	}
	w.a.printError(err)
}
