// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/engine/remote"
	"github.com/seed71221737/dev/engine/watch"
)

// lockVariable switches the lock file off when it says so.
const lockVariable = "DEV_LOCK"

type lockOptions struct{ update, check, outdated bool }

func newLockCommand(a *app) *cobra.Command {
	var o lockOptions
	c := &cobra.Command{
		Use:     "lock [OPTIONS] [SERVICE...]",
		Short:   "Write down which images the application runs and builds on",
		GroupID: groupImages,
		Long: `Asks the registries which images the names in the Compose files and Dockerfiles stand
for now, and writes their digests to compose.lock beside the Compose file. From then
on dev up, run, pull and build use exactly these, and say which names the file lacks;
DEV_LOCK=off ignores it.

Without options what is locked stays; what is new is added, what nothing uses any more
removed.`,
		Example: `  dev lock                    write or complete compose.lock
  dev lock --update           … with what the names stand for today
  dev lock --update web       … for one service
  dev lock --check            for scripts: exit status 2 if it is not complete`,
		ValidArgsFunction: a.completeServices,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case o.check && (o.update || o.outdated), o.update && o.outdated:
				return usagef("--update, --check and --outdated exclude each other")
			case len(args) > 0 && !o.update:
				return usagef("services are named with --update only")
			}
			return a.runLock(c.Context(), o, args)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.update, "update", false, "ask the registries again for what is locked already")
	f.BoolVar(&o.check, "check", false, "write nothing; exit with 2 if the lock file does not fit the project")
	f.BoolVar(&o.outdated, "outdated", false, "write nothing; show which names stand for other images by now, and exit with 2 if there are any")
	return c
}

// lockJob is a project with its lock and what the lock has to have.
type lockJob struct {
	path  string
	lock  compose.Lock
	there bool // the file is
	bases map[string][]string
	needs []compose.LockNeed
}

func (a *app) runLock(ctx context.Context, o lockOptions, services []string) error {
	l, err := a.loadOptions()
	if err != nil {
		return err
	}
	p, err := a.loadWith(ctx, l, nil)
	if err != nil {
		return err
	}
	if err := checkServices(p, services); err != nil {
		return err
	}
	job, err := a.newLockJob(p)
	if err != nil {
		return err
	}
	switch {
	case o.check:
		return a.checkLock(job)
	case o.outdated:
		return a.showOutdated(ctx, job)
	}
	return a.writeLock(ctx, job, o.update, services)
}

// newLockJob reads the lock file, if there is one, and the Dockerfiles.
func (a *app) newLockJob(p *types.Project) (lockJob, error) {
	job := lockJob{path: filepath.Join(p.WorkingDir, compose.LockName), lock: compose.NewLock(), bases: map[string][]string{}}
	data, err := os.ReadFile(job.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return job, fmt.Errorf("read lock file: %w", err)
	default:
		job.there = true
		if job.lock, err = compose.ParseLock(job.path, data); err != nil {
			return job, err
		}
	}
	for name, s := range p.AllServices() {
		bases, err := basesOf(p, s)
		if err != nil {
			a.warn(fmt.Sprintf("service %s: %v; what it is built on is not locked", name, err))
		}
		job.bases[name] = bases
	}
	job.needs = append(compose.LockNeeds(p, job.bases), compose.ContextNeeds(p, remote.IsGit)...)
	return job, nil
}

// basesOf reads which images a service's build is based on. Builds whose context is elsewhere are not looked at.
func basesOf(p *types.Project, s types.ServiceConfig) ([]string, error) {
	if s.Build == nil {
		return nil, nil
	}
	args := map[string]string{}
	for name, value := range s.Build.Args {
		if value != nil {
			args[name] = *value
		} else if v, ok := p.Environment[name]; ok {
			args[name] = v
		}
	}
	var contexts []string
	for name := range s.Build.AdditionalContexts {
		contexts = append(contexts, name)
	}
	if s.Build.DockerfileInline != "" {
		return watch.BaseImages(strings.NewReader(s.Build.DockerfileInline), args, contexts)
	}
	name := s.Build.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.Build.Context, name)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(s.Build.Context) {
		return nil, nil // a repository, or the like
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return watch.BaseImages(f, args, contexts)
}

// checkLock compares the lock with the project.
func (a *app) checkLock(job lockJob) error {
	if !job.there {
		return withHint(fmt.Errorf("there is no %s", job.path), "dev lock")
	}
	missing, unused := job.lock.Drift(job.needs)
	var lines []string
	for _, ref := range missing {
		lines = append(lines, "missing "+ref)
	}
	for _, ref := range unused {
		lines = append(lines, "unused  "+ref)
	}
	if err := a.printLines(lines); err != nil || len(lines) == 0 {
		return err
	}
	a.say("dev lock completes " + compose.LockName)
	return exitStatus(exitChanges)
}

// meaning is what a name stands for: an image's digest or a repository's commit.
type meaning struct {
	id        string
	platforms map[string]string
}

// ask finds out what names stand for now.
func (a *app) ask(ctx context.Context, needs []compose.LockNeed) (map[string]meaning, error) {
	f, err := a.remoteFiles()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	found := map[string]meaning{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, n := range needs {
		g.Go(func() error {
			var m meaning
			var err error
			if n.Context {
				m.id, err = f.Commit(gctx, n.Ref)
			} else {
				m.id, m.platforms, err = f.Digests(gctx, n.Ref)
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[n.Ref] = m
			return nil
		})
	}
	return found, g.Wait()
}

// showOutdated lists the names that stand for other images than when they were locked.
func (a *app) showOutdated(ctx context.Context, job lockJob) error {
	var locked []compose.LockNeed
	for _, n := range job.needs {
		if _, ok := job.lock.Locked(n); ok {
			locked = append(locked, n)
		}
	}
	now, err := a.ask(ctx, locked)
	if err != nil {
		return err
	}
	t := table{header: []string{"IMAGE", "LOCKED", "NOW", "USED BY"}}
	for _, n := range locked {
		if was, _ := job.lock.Locked(n); was != now[n.Ref].id {
			t.add(n.Ref, shortDigest(was), shortDigest(now[n.Ref].id), strings.Join(n.UsedBy, ", "))
		}
	}
	if len(t.rows) == 0 {
		a.say("all names stand for the images that are locked")
		return nil
	}
	if err := t.write(a.out); err != nil {
		return err
	}
	return exitStatus(exitChanges)
}

func shortDigest(digest string) string {
	hex := digest[strings.LastIndex(digest, ":")+1:] // a commit has none
	return hex[:min(12, len(hex))]
}

// writeLock completes the lock and, with update, asks again for the images of the services, or all.
func (a *app) writeLock(ctx context.Context, job lockJob, update bool, services []string) error {
	var open []compose.LockNeed
	for _, n := range job.needs {
		_, locked := job.lock.Locked(n)
		named := len(services) == 0 || slices.ContainsFunc(n.Services, func(s string) bool { return slices.Contains(services, s) })
		if !locked || update && named {
			open = append(open, n)
		}
	}
	found, err := a.ask(ctx, open)
	if err != nil {
		return withHint(err, "nothing was written; check that the registry answers")
	}
	lock := compose.NewLock()
	for _, n := range job.needs {
		now, asked := found[n.Ref]
		was, locked := job.lock.Locked(n)
		switch {
		case !asked:
			now = meaning{was, job.lock.Images[n.Ref].Platforms}
		case !locked:
			a.say(fmt.Sprintf("%s is %s", n.Ref, shortDigest(now.id)))
		case was != now.id:
			a.say(fmt.Sprintf("%s is %s instead of %s", n.Ref, shortDigest(now.id), shortDigest(was)))
		}
		if n.Context {
			if lock.Contexts == nil {
				lock.Contexts = map[string]compose.LockedContext{}
			}
			lock.Contexts[n.Ref] = compose.LockedContext{Commit: now.id, UsedBy: n.UsedBy}
			continue
		}
		lock.Images[n.Ref] = compose.LockedImage{Digest: now.id, Platforms: now.platforms, UsedBy: n.UsedBy}
	}
	if _, unused := job.lock.Drift(job.needs); len(unused) > 0 {
		a.say("no longer used: " + strings.Join(unused, ", "))
	}
	text, err := lock.Encode()
	if err != nil || a.dryRun {
		return err
	}
	if err := atomicfile.Write(job.path, text, 0o644); err != nil {
		return fmt.Errorf("write lock file: %w", err)
	}
	return nil
}

// enforceLock pins the project's images to what the lock file has, if there is one; what it lacks is remembered for [app.tellDrift].
func (a *app) enforceLock(p *types.Project) (*types.Project, error) {
	if !fileExists(filepath.Join(p.WorkingDir, compose.LockName)) || a.getenv(lockVariable) == "off" {
		return p, nil
	}
	job, err := a.newLockJob(p)
	if err != nil {
		return nil, err
	}
	a.unlocked, _ = job.lock.Drift(job.needs)
	return job.lock.Apply(p, job.bases), nil
}

// tellDrift says which images the lock file lacks.
func (a *app) tellDrift() {
	for _, ref := range a.unlocked {
		what, by := "image", "registry"
		if remote.IsGit(ref) {
			what, by = "build context", "repository"
		}
		a.warn(fmt.Sprintf("%s %s is not in %s: it is used as the %s has it now; dev lock adds it", what, ref, compose.LockName, by))
	}
}

// fileExists reports whether there is something at a path; what cannot be looked at is met again when it is read.
func fileExists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}
