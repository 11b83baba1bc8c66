// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package saved

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/engine/native/atomicfile"
	"github.com/seed71221737/dev/machine/sparse"
)

// Templates are states of machines from before they had any data, each with the disk that it fits. New machines of the same kind start from a copy of both.
// A template is made once and never changed, but for compression; all processes of a user share them.
type Templates struct {
	// Dir is the folder with a folder for each.
	Dir string
	// Most is how many are kept: those that were used last.
	Most   int
	Logger *slog.Logger
}

const (
	diskName    = "disk.img"
	tmpTemplate = ".tmp-"
	// halfMade is how long a template may take to be made before it is rubbish of a crash.
	halfMade = time.Hour
)

// folder is where the template of machines with these facts is.
func (t *Templates) folder(facts []Fact) string {
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "%q=%q\n", f.Name, f.Value)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return filepath.Join(t.Dir, hex.EncodeToString(sum[:10]))
}

// Has says whether there is a template of machines with these facts.
func (t *Templates) Has(facts []Fact) bool {
	_, err := os.Stat(filepath.Join(t.folder(facts), infoName))
	return err == nil
}

// Draft is a template that is being made.
type Draft struct {
	t     *Templates
	dir   string
	facts []Fact
}

// New begins a template of machines with these facts.
func (t *Templates) New(facts []Fact) (*Draft, error) {
	d := &Draft{t: t, dir: filepath.Join(t.Dir, tmpTemplate+strings.ToLower(rand.Text()[:10])), facts: facts}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a template: %w", err)
	}
	return d, nil
}

// File is where the memory is to be written.
func (d *Draft) File() string { return filepath.Join(d.dir, "template"+fileSuffix) }

// CopyDisk takes the disk as it is now.
func (d *Draft) CopyDisk(ctx context.Context, disk string) error {
	return sparse.Copy(ctx, filepath.Join(d.dir, diskName), disk)
}

// Discard takes back what was begun.
func (d *Draft) Discard() error { return os.RemoveAll(d.dir) }

// Commit makes memory and disk a template.
func (d *Draft) Commit(notes json.RawMessage) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Discard())
		}
	}()
	i := Info{Version: infoVersion, File: filepath.Base(d.File()), Created: time.Now(), Facts: d.facts, Notes: notes, dir: d.dir}
	if err := i.describe(); err != nil {
		return err
	}
	if i.Disk, err = syncDisk(filepath.Join(d.dir, diskName)); err != nil {
		return err
	}
	if err := i.write(); err != nil {
		return err
	}
	if err := d.place(); err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	d.t.bound()
	return nil
}

// place puts the whole template where it is found, one process after the other. What lies there and is none is what a crash left of an earlier one.
func (d *Draft) place() error {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	l := flock.New(filepath.Join(d.t.Dir, lockName))
	if ok, err := l.TryLockContext(ctx, 5*time.Millisecond); !ok || err != nil {
		return fmt.Errorf("lock the templates: %w", err)
	}
	defer func() { _ = l.Unlock() }()
	if d.t.Has(d.facts) {
		return d.Discard() // somebody else has made it meanwhile
	}
	into := d.t.folder(d.facts)
	if _, err := os.Stat(into); err == nil {
		unlock, err := tryLock(into)
		if errors.Is(err, ErrWanted) {
			return d.Discard() // somebody is removing it just now
		}
		if err == nil {
			err = d.t.removeFolder(into)
			unlock()
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(os.Rename(d.dir, into), atomicfile.SyncDir(d.t.Dir))
}

// removeFolder takes a template away: aside first, so that neither a crash nor somebody who looks meanwhile finds half of it in its place.
func (t *Templates) removeFolder(dir string) error {
	aside := filepath.Join(t.Dir, tmpTemplate+strings.ToLower(rand.Text()[:10]))
	if err := os.Rename(dir, aside); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove a template: %w", err)
	}
	return os.RemoveAll(aside)
}

// Template is one that a new machine starts from. It is held until Release.
type Template struct {
	*Info
	t      *Templates
	keeper Keeper
}

// Take finds the template of machines with these facts; nil where there is none. One that cannot be used is removed.
func (t *Templates) Take(ctx context.Context, facts []Fact) (_ *Template, why string, err error) {
	dir := t.folder(facts)
	k := Keeper{Dir: dir, Disk: filepath.Join(dir, diskName), Logger: t.Logger, Facts: func(context.Context) ([]Fact, error) { return facts, nil }}
	state, why, err := k.Take(ctx)
	switch {
	case why != "":
		return nil, why, errors.Join(err, t.removeFolder(dir))
	case err != nil || state == nil:
		return nil, "", err
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, infoName), now, now) // when it was used last decides only which is kept
	return &Template{state, t, k}, "", nil
}

// CopyDisk puts a copy of the template's disk in the place of a disk without data.
func (t *Template) CopyDisk(ctx context.Context, disk string) error {
	if empty, err := Empty(disk); err != nil || !empty {
		return errors.Join(err, errors.New("copy a template's disk: the machine has data"))
	}
	tmp := disk + ".template"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy a template's disk: %w", err)
	}
	if err := sparse.Copy(ctx, tmp, t.keeper.Disk); err != nil {
		return err
	}
	if err := os.Rename(tmp, disk); err != nil {
		return errors.Join(fmt.Errorf("copy a template's disk: %w", err), os.Remove(tmp))
	}
	return atomicfile.SyncDir(filepath.Dir(disk))
}

// Release lets others have it.
func (t *Template) Release() { t.keeper.unlock() }

// Remove takes a template away that is of no use.
func (t *Template) Remove(why string) error {
	t.t.Logger.Info("a template is removed", "why", why)
	defer t.keeper.unlock()
	return t.t.removeFolder(t.keeper.Dir)
}

// Empty says whether a disk has never been written to, as far as the file system can tell: where it cannot, no disk is.
func Empty(disk string) (bool, error) {
	f, err := os.Open(disk)
	if err != nil {
		return false, fmt.Errorf("look at the disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the disk: %w", err)
	}
	start, _, err := sparse.Next(f, 0, info.Size())
	return err == nil && start == info.Size(), err
}

// TemplateInfo is what there is to know of a template.
type TemplateInfo struct {
	Dir string
	// Used is when a machine was made from it last, or when it was made.
	Used time.Time
	// OnHost is how many bytes it takes up.
	OnHost int64
	Facts  []Fact
}

// List are the templates, the one used last first.
func (t *Templates) List() ([]TemplateInfo, error) {
	entries, err := os.ReadDir(t.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var list []TemplateInfo
	for _, e := range entries {
		dir := filepath.Join(t.Dir, e.Name())
		info, err := os.Stat(filepath.Join(dir, infoName))
		if strings.HasPrefix(e.Name(), tmpTemplate) || err != nil {
			continue
		}
		x := TemplateInfo{Dir: dir, Used: info.ModTime(), OnHost: OnHost(dir)}
		if state, err := Read(dir); err == nil && state != nil {
			x.Facts = state.Facts
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b TemplateInfo) int { return cmp.Compare(b.Used.UnixNano(), a.Used.UnixNano()) })
	return list, nil
}

// OnHost is how many bytes the files of a folder with saved memory take up.
func OnHost(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var sum int64
	for _, e := range entries {
		if n, err := sparse.Allocated(filepath.Join(dir, e.Name())); err == nil {
			sum += n
		}
	}
	return sum
}

// Prune removes the templates that keep does not want, unless they are in use, and returns how many bytes that gave back.
func (t *Templates) Prune(keep func(TemplateInfo) bool) (freed int64, err error) {
	list, err := t.List()
	if err != nil {
		return 0, err
	}
	for _, x := range list {
		if keep(x) {
			continue
		}
		unlock, lockErr := tryLock(x.Dir)
		if lockErr != nil {
			continue // a machine is starting from it
		}
		removeErr := t.removeFolder(x.Dir)
		unlock()
		if removeErr == nil {
			freed += x.OnHost
		}
		err = errors.Join(err, removeErr)
	}
	return freed, err
}

// bound removes the templates that were not used for longest, and what crashes left. It is best effort.
func (t *Templates) bound() {
	n := 0
	if _, err := t.Prune(func(TemplateInfo) bool { n++; return n <= t.Most }); err != nil {
		t.Logger.Warn("remove old templates", "error", err)
	}
	entries, err := os.ReadDir(t.Dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), tmpTemplate) && time.Since(info.ModTime()) > halfMade {
			if err := os.RemoveAll(filepath.Join(t.Dir, e.Name())); err != nil {
				t.Logger.Warn("remove half a template", "error", err)
			}
		}
	}
}
